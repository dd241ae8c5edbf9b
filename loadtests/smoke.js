/**
 * Half a minute of little: does everything work? Every check must hold; whether it is quick, load.js tells.
 */

import { signInAll } from './lib/people.js';
import { thresholds } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';

const DURATION = __ENV.DURATION ?? '30s';

/** @type {import('k6/options').Options} */
export const options = {
  scenarios: {
    journey: {
      executor: 'constant-arrival-rate',
      exec: 'journey',
      rate: 1,
      timeUnit: '2s',
      duration: DURATION,
      preAllocatedVUs: 10,
    },
    login: {
      executor: 'constant-arrival-rate',
      exec: 'login',
      rate: 1,
      timeUnit: '5s',
      duration: DURATION,
      preAllocatedVUs: 2,
    },
  },
  thresholds: thresholds({ latency: false }),
  setupTimeout: '120s',
};

export function setup() {
  return signInAll(1);
}
