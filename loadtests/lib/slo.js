/**
 * What is promised, from the one place that says so: prometheus/slo.json, which the rules are generated from too.
 */

/**
 * @typedef {object} Slo
 * @property {string} name
 * @property {number} objective Percent of good events.
 * @property {number} [threshold_seconds] An answer is good within this time.
 * @property {string[]} [routes] Only these.
 * @property {string[]} [exclude_routes] All but these.
 */

/** @type {{slos: Slo[]}} */
const statement = JSON.parse(open(import.meta.resolve('../../prometheus/slo.json')));

/**
 * @param {string} name
 * @returns {Slo}
 */
function slo(name) {
  const found = statement.slos.find((slo) => slo.name === name);
  if (!found) throw new Error(`prometheus/slo.json has no SLO called ${name}`);
  return found;
}

/** SLOs about the time an answer takes: the names under which requests are tagged. */
export const LATENCIES = Object.freeze([slo('latency'), slo('latency-login')]);

/** The share of requests that may fail, from 0 to 1. */
export const FAILING = 1 - slo('errors').objective / 100;

/**
 * The threshold on the time of the answers. P99_MS asks more of `latency` than the SLO does.
 *
 * @param {Slo} slo
 * @returns {string}
 */
export function limitOf({ name, objective, threshold_seconds }) {
  if (!threshold_seconds) throw new Error(`prometheus/slo.json: ${name} has no threshold_seconds`);
  const stricter = name === 'latency' && __ENV.P99_MS;
  if (stricter && !(Number(stricter) > 0)) throw new Error(`P99_MS=${stricter} is no number of milliseconds`);
  return `p(${objective})<${stricter || 1000 * threshold_seconds}`;
}

/**
 * The name of the latency SLO that a route counts for, if it counts for one.
 *
 * @param {string} route
 * @returns {string | undefined}
 */
export function latencyOf(route) {
  const counts = LATENCIES.find(({ routes, exclude_routes }) =>
    routes ? routes.includes(route) : !exclude_routes?.includes(route),
  );
  return counts?.name;
}
