/**
 * Once, twice and three times the load, each for DURATION, and once again. What is too much may be turned away with a
 * word when to come again, and nothing else may go wrong; when it is over, the promises must be kept as before.
 */

import { withKnown } from './lib/mix.js';
import { signInAll } from './lib/people.js';
import { COMMON, RATE, beside, duration, lasts, mix } from './lib/plan.js';
import { summary } from './lib/summary.js';
import { ofStep, overload } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';
export { change, list, read } from './lib/mix.js';

const seconds = duration('60s');
const after = { name: '1x again', rate: RATE, seconds };
const steps = [
  { name: '1x', rate: RATE, seconds },
  { name: '2x', rate: 2 * RATE, seconds },
  { name: '3x', rate: 3 * RATE, seconds },
  // What was begun before is still being answered.
  { name: 'settling', rate: RATE, seconds: 10 },
  after,
];

/** @type {import('k6/options').Options} */
export const options = {
  ...COMMON,
  scenarios: { ...mix(steps), ...beside(lasts(steps)) },
  thresholds: { ...overload(steps), ...ofStep(after, {}) },
};

export function setup() {
  return withKnown(signInAll());
}

export const handleSummary = summary('stress', steps);
