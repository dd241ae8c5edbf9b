/**
 * More and more, by a quarter of RATE every DURATION, until the promises are kept no longer: at that step the run ends,
 * and the step before is the highest rate that the server carries.
 */

import { withKnown } from './lib/mix.js';
import { signInAll } from './lib/people.js';
import { COMMON, RATE, duration, lasts, mix } from './lib/plan.js';
import { summary } from './lib/summary.js';
import { ofStep } from './lib/thresholds.js';

export { change, list, read } from './lib/mix.js';

const seconds = duration('20s');
const MOST = 20;
const steps = Array.from({ length: MOST }, (_, at) => {
  const rate = Math.round(((at + 1) * RATE) / 4);
  return { name: String(rate), rate, seconds };
});

/** @type {import('k6/options').Options} */
export const options = {
  ...COMMON,
  scenarios: mix(steps),
  // Each is judged when it is over: of the first few answers, one may be slow.
  thresholds: Object.assign(
    {},
    ...steps.map((step, at) => ofStep(step, { abortAfter: lasts(steps.slice(0, at + 1)) })),
  ),
};

export function setup() {
  return withKnown(signInAll());
}

export const handleSummary = summary('breakpoint', steps, (found) => {
  const broken = found.steps.findIndex(({ held }) => !held);
  const highest_rate = (broken < 0 ? found.steps.at(-1) : found.steps[broken - 1])?.rate ?? 0;
  const end = broken < 0 ? ', and more was not tried' : '';
  const line = `breakpoint: ${highest_rate} requests a second hold the promises${end}`;
  // Promises that are broken in the end are what it is for.
  const thresholds = found.thresholds.filter(({ ok }) => !ok);
  return { line, more: { passed: highest_rate > 0, highest_rate, thresholds } };
});
