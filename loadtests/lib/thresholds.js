/**
 * When a run has failed. A threshold on a tag that nothing carries has no samples, and k6 lets it pass; so each one is
 * paired with one that counts the requests with this very tag, and a misspelt tag fails the run. `make smoke` proves
 * it.
 */

import { PARTS } from './mix.js';
import { scenarioOf } from './plan.js';
import { ROUTES } from './routes.js';
import { FAILING, LATENCIES, limitOf } from './slo.js';

/** @typedef {import('k6/options').Threshold} Threshold */
/** @typedef {Record<string, Threshold[]>} Thresholds */
/** @typedef {import('./plan.js').Step} Step */

/** @param {number} share */
const fewer = (share) => (share === 0 ? 'rate==0' : `rate<${share.toFixed(4)}`);

/**
 * Every tag has been seen.
 *
 * @returns {Thresholds}
 */
function visited() {
  /** @type {Thresholds} */
  const all = {};
  for (const route of Object.values(ROUTES)) {
    all[`http_reqs{name:${route}}`] = ['count>0'];
    // Nothing is asked of these: without a line here the summary would not know them.
    all[`http_req_failed{name:${route}}`] = [];
    all[`http_req_duration{name:${route}}`] = [];
  }
  for (const { name } of LATENCIES) all[`http_reqs{slo:${name}}`] = ['count>0'];
  return all;
}

/**
 * For a load that the server has to carry.
 *
 * @param {object} [limits]
 * @param {boolean} [limits.latency] Whether answers must be in time; not where too few are asked for to tell.
 * @param {number} [limits.checks] The share of checks that must hold; one that is turned away does not.
 * @param {number} [limits.failing] The share of requests, of all and of those of each route, that may fail.
 * @returns {Thresholds}
 */
export function thresholds({ latency = true, checks = 1, failing = FAILING } = {}) {
  /** @type {Thresholds} */
  const all = {
    ...visited(),
    checks: [checks === 1 ? 'rate==1' : `rate>=${checks}`],
    http_req_failed: [fewer(failing)],
    // Without samples when nothing was dropped, which is what is wanted.
    dropped_iterations: ['count==0'],
  };
  for (const route of Object.values(ROUTES)) all[`http_req_failed{name:${route}}`] = [fewer(failing)];
  // Of the answers that are no failure, as the SLO has it.
  for (const slo of LATENCIES) {
    if (latency) all[`http_req_duration{slo:${slo.name},expected_response:true}`] = [limitOf(slo)];
  }
  return all;
}

/**
 * For more than the server has to carry: it may turn requests away, with a word when to come again.
 *
 * @param {Step[]} steps
 * @returns {Thresholds}
 */
export function overload(steps) {
  return { ...visited(), broken: ['rate==0'], ...Object.assign({}, ...steps.map((step) => ofStep(step))) };
}

/**
 * What the summary needs to know about a step; with `held`, it must keep the promises.
 *
 * @param {Step} step
 * @param {object} [held]
 * @param {number} [held.abortAfter] Without them the run ends, but not before so many seconds.
 * @returns {Thresholds}
 */
export function ofStep(step, held) {
  const [latency] = LATENCIES;
  if (!latency) throw new Error('no SLO is about latency');
  /** @param {string} threshold @returns {Threshold[]} */
  const must = (threshold) => {
    if (!held) return [];
    if (held.abortAfter === undefined) return [threshold];
    return [{ threshold, abortOnFail: true, delayAbortEval: `${held.abortAfter}s` }];
  };
  const tag = `step:${step.name}`;
  /** @type {Thresholds} */
  const all = {
    [`http_reqs{${tag}}`]: [],
    // A step that is never reached does not keep the run from passing: see breakpoint.js.
    [`http_reqs{${tag},slo:${latency.name}}`]: held && held.abortAfter === undefined ? ['count>0'] : [],
    [`http_req_duration{${tag},slo:${latency.name},expected_response:true}`]: must(limitOf(latency)),
    [`http_req_failed{${tag}}`]: must(fewer(FAILING)),
    [`shed{${tag}}`]: must('count==0'),
  };
  for (const part of Object.keys(PARTS)) {
    all[`dropped_iterations{scenario:${scenarioOf(step, part)}}`] = must('count==0');
  }
  return all;
}
