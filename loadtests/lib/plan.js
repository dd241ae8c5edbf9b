/**
 * How a run goes: the mix in steps, one after the other, and beside it the whole journey now and then, so that every
 * route is visited. All arrive at a rate of their own, whether or not the server keeps up.
 */

import { PARTS } from './mix.js';

/** @typedef {import('k6/options').Scenario} Scenario */

/**
 * @typedef {object} Step
 * @property {string} name The tag `step` of its requests.
 * @property {number} rate Requests a second.
 * @property {number} seconds
 * @property {number} [from] It climbs from this rate to its own.
 */

/** Requests a second: the load that is meant to be carried. */
export const RATE = Number(__ENV.RATE || 400);
if (!(RATE > 0)) throw new Error(`RATE=${__ENV.RATE} is no number of requests a second`);

/**
 * The seconds that DURATION says, such as 60s, 30m or 1h30m.
 *
 * @param {string} otherwise
 */
export function duration(otherwise) {
  const text = __ENV.DURATION || otherwise;
  if (!/^(\d+[hms])+$/.test(text)) throw new Error(`DURATION=${text} is no time such as 30m or 1h30m`);
  const parts = [...text.matchAll(/(\d+)([hms])/g)];
  return parts.reduce(
    (sum, [, number, unit]) => sum + Number(number) * (unit === 'h' ? 3600 : unit === 'm' ? 60 : 1),
    0,
  );
}

/**
 * Enough for answers that take half a second; and for more requests at a time than the server takes (256), so that it
 * has to turn some away, but no more: with thousands of them k6 would measure itself.
 *
 * @param {number} rate
 * @param {number} share
 */
function users(rate, share) {
  return Math.max(4, Math.ceil(share * Math.min(rate / 2, 500)));
}

/**
 * The name of a scenario: k6 counts dropped iterations by it, and not by the step.
 *
 * @param {Step} step
 * @param {string} part
 */
export function scenarioOf(step, part) {
  return `${step.name}_${part}`.replace(/\W/g, '_');
}

/** @param {Step[]} steps */
export function lasts(steps) {
  return steps.reduce((sum, { seconds }) => sum + seconds, 0);
}

/**
 * @param {Step[]} steps
 * @returns {Record<string, Scenario>}
 */
export function mix(steps) {
  /** @type {Record<string, Scenario>} */
  const scenarios = {};
  steps.forEach((step, at) => {
    for (const [part, share] of Object.entries(PARTS)) {
      /** @param {number} rate */
      const every10s = (rate) => Math.max(1, Math.round(10 * rate * share));
      const common = {
        exec: part,
        timeUnit: '10s',
        startTime: `${lasts(steps.slice(0, at))}s`,
        // Longer than a request may take: one that is cut off would count as unanswered.
        gracefulStop: '16s',
        preAllocatedVUs: users(Math.max(step.rate, step.from ?? 0), share),
        tags: { step: step.name },
      };
      const length = `${step.seconds}s`;
      scenarios[scenarioOf(step, part)] = step.from
        ? {
            ...common,
            executor: 'ramping-arrival-rate',
            startRate: every10s(step.from),
            stages: [{ target: every10s(step.rate), duration: length }],
          }
        : { ...common, executor: 'constant-arrival-rate', rate: every10s(step.rate), duration: length };
    }
  });
  return scenarios;
}

/**
 * One client in two seconds, whose story is about 20 requests, and one sign-in in five.
 *
 * @param {number} seconds
 * @returns {Record<string, Scenario>}
 */
export function beside(seconds) {
  const common = { executor: /** @type {const} */ ('constant-arrival-rate'), rate: 1, duration: `${seconds}s` };
  return {
    // A story takes about two seconds: this is for a server that takes ten times as long.
    journey: { ...common, exec: 'journey', timeUnit: '2s', preAllocatedVUs: 10 },
    login: { ...common, exec: 'login', timeUnit: '5s', preAllocatedVUs: 4 },
  };
}

/**
 * What all runs have in common.
 *
 * @type {import('k6/options').Options}
 */
export const COMMON = {
  setupTimeout: '120s',
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max', 'count'],
};
