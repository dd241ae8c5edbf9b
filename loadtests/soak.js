/**
 * Half of the load for a long time (DURATION): what leaks, piles up or slows down by and by shows, which a minute hides.
 * The promises must be kept; a sign-in or two may be turned away, because here virtual users sign in too, when their
 * tokens have ended.
 */

import { withKnown } from './lib/mix.js';
import { signInAll } from './lib/people.js';
import { COMMON, RATE, beside, duration, mix } from './lib/plan.js';
import { summary } from './lib/summary.js';
import { thresholds } from './lib/thresholds.js';

export { journey, login } from './lib/journey.js';
export { change, list, read } from './lib/mix.js';

const seconds = duration('30m');

/** @type {import('k6/options').Options} */
export const options = {
  ...COMMON,
  scenarios: { ...mix([{ name: 'soak', rate: RATE / 2, seconds }]), ...beside(seconds) },
  thresholds: thresholds({ checks: 0.99 }),
};

export function setup() {
  return withKnown(signInAll());
}

export const handleSummary = summary('soak');
