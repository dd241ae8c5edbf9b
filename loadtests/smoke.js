/**
 * Half a minute of little: does everything work? Every check must hold; whether it is quick, load.js tells.
 */

import { signInAll } from './lib/people.js';
import { COMMON, beside, duration } from './lib/plan.js';
import { summary } from './lib/summary.js';
import { thresholds } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';

/** @type {import('k6/options').Options} */
export const options = {
  ...COMMON,
  scenarios: beside(duration('30s')),
  thresholds: thresholds({ latency: false }),
};

export function setup() {
  return signInAll(1);
}

export const handleSummary = summary('smoke');
