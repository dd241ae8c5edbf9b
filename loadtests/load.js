/**
 * The load that the server has to carry, for DURATION: RATE requests a second, 60 % lists, 30 % single service requests
 * and 10 % changes, and beside them the whole journey. Not one may fail or be turned away, the promises of
 * prometheus/slo.json must be kept, and no request may find that there is nobody left to send it (dropped_iterations).
 */

import { withKnown } from './lib/mix.js';
import { signInAll } from './lib/people.js';
import { COMMON, RATE, beside, duration, mix } from './lib/plan.js';
import { summary } from './lib/summary.js';
import { thresholds } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';
export { change, list, read } from './lib/mix.js';

const seconds = duration('60s');

/** @type {import('k6/options').Options} */
export const options = {
  ...COMMON,
  scenarios: { ...mix([{ name: 'load', rate: RATE, seconds }]), ...beside(seconds) },
  thresholds: thresholds({ failing: 0 }),
};

export function setup() {
  return withKnown(signInAll());
}

export const handleSummary = summary('load');
