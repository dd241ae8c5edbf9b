/**
 * When a run has failed. A threshold on a tag that nothing carries has no samples, and k6 lets it pass; so each one is
 * paired with one that counts the requests with this very tag, and a misspelt tag fails the run. `make smoke` proves
 * it.
 */

import { ROUTES } from './routes.js';
import { FAILING, LATENCIES } from './slo.js';

/**
 * @param {object} [limits]
 * @param {boolean} [limits.latency] Whether answers must be in time; not where too few are asked for to tell.
 * @param {number} [limits.checks] The share of checks that must hold.
 * @returns {Record<string, string[]>}
 */
export function thresholds({ latency = true, checks = 1 } = {}) {
  /** @type {Record<string, string[]>} */
  const all = {
    checks: [checks === 1 ? 'rate==1' : `rate>=${checks}`],
    http_req_failed: [`rate<${FAILING.toFixed(4)}`],
    // Without samples when nothing was dropped, which is what is wanted.
    dropped_iterations: ['count==0'],
  };
  for (const route of Object.values(ROUTES)) {
    all[`http_reqs{name:${route}}`] = ['count>0'];
    all[`http_req_failed{name:${route}}`] = [`rate<${FAILING.toFixed(4)}`];
  }
  for (const { name, objective, threshold_seconds } of LATENCIES) {
    if (!threshold_seconds) throw new Error(`prometheus/slo.json: ${name} has no threshold_seconds`);
    all[`http_reqs{slo:${name}}`] = ['count>0'];
    // Of the answers that are no failure, as the SLO has it.
    const good = `http_req_duration{slo:${name},expected_response:true}`;
    if (latency) all[good] = [`p(${objective})<${1000 * threshold_seconds}`];
  }
  return all;
}
