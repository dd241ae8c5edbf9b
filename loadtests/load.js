/**
 * As many clients as a busy day has at its busiest, whether or not the server keeps up: they arrive at a constant rate
 * (RATE a second, 20 requests each, and one sign-in every five seconds) for DURATION. The promises of
 * prometheus/slo.json must be kept, and no client may find that there is nobody left to play them (dropped_iterations).
 */

import { signInAll } from './lib/people.js';
import { thresholds } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';

const DURATION = __ENV.DURATION ?? '60s';
const RATE = Number(__ENV.RATE ?? 3);
if (!(RATE > 0)) throw new Error(`RATE=${__ENV.RATE} is no number of clients a second`);

/** @type {import('k6/options').Options} */
export const options = {
  scenarios: {
    journey: {
      executor: 'constant-arrival-rate',
      exec: 'journey',
      rate: Math.round(RATE * 10),
      timeUnit: '10s',
      duration: DURATION,
      // A story takes about two seconds: this is for a server that takes five times as long.
      preAllocatedVUs: Math.ceil(RATE * 10),
    },
    login: {
      executor: 'constant-arrival-rate',
      exec: 'login',
      rate: 1,
      timeUnit: '5s',
      duration: DURATION,
      preAllocatedVUs: 4,
    },
  },
  thresholds: thresholds({ checks: 0.99 }),
  setupTimeout: '120s',
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max', 'count'],
};

export function setup() {
  return signInAll();
}
