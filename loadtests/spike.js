/**
 * Ten times the load within ten seconds, for DURATION, and as suddenly over. What is too much may be turned away with a
 * word when to come again, and nothing else may go wrong; after a minute the promises must be kept as before.
 */

import { withKnown } from './lib/mix.js';
import { signInAll } from './lib/people.js';
import { COMMON, RATE, beside, duration, lasts, mix } from './lib/plan.js';
import { summary } from './lib/summary.js';
import { ofStep, overload } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';
export { change, list, read } from './lib/mix.js';

const seconds = duration('20s');
const recovered = { name: 'recovered', rate: RATE, seconds };
const steps = [
  { name: 'before', rate: RATE, seconds },
  { name: 'rising', from: RATE, rate: 10 * RATE, seconds: 10 },
  { name: '10x', rate: 10 * RATE, seconds },
  { name: 'recovering', rate: RATE, seconds: 60 },
  recovered,
];

/** @type {import('k6/options').Options} */
export const options = {
  ...COMMON,
  scenarios: { ...mix(steps), ...beside(lasts(steps)) },
  thresholds: { ...overload(steps), ...ofStep(recovered, {}) },
};

export function setup() {
  return withKnown(signInAll());
}

export const handleSummary = summary('spike', steps);
