/**
 * What came of a run: a table for people, and JSON for machines in the file that SUMMARY names.
 */

import { PARTS } from './mix.js';
import { scenarioOf } from './plan.js';
import { ROUTES } from './routes.js';
import { LATENCIES } from './slo.js';

/** @typedef {import('./plan.js').Step} Step */

/**
 * @typedef {object} Metric
 * @property {Record<string, number>} values
 * @property {Record<string, {ok: boolean}>} [thresholds]
 */

/** @typedef {{ metrics: Record<string, Metric>, state: { testRunDurationMs: number } }} Data What k6 hands over. */

/** @typedef {{ count: number, failed: number, p50_ms: number, p95_ms: number, p99_ms: number }} Figures */
/** @typedef {Figures & { name: string, rate: number, seconds: number, shed: number, dropped: number, held: boolean }} StepFigures */
/** @typedef {{ metric: string, threshold: string, value: number, ok: boolean }} Verdict */

/**
 * @typedef {object} Summary
 * @property {string} name
 * @property {boolean} passed
 * @property {number} seconds
 * @property {{ requests: number, requests_per_second: number, failed: number, shed: number, dropped: number }} totals
 * @property {Record<string, Figures>} routes
 * @property {StepFigures[]} steps
 * @property {Verdict[]} thresholds
 */

/** @param {number} number */
const rounded = (number) => Math.round(number * 100) / 100;

/** @param {Data} data @param {string} metric @param {string} value */
const value = ({ metrics }, metric, value) => metrics[metric]?.values[value] ?? 0;

/**
 * @param {Data} data
 * @param {string} tag
 * @param {string} [timed] The tags of the requests whose time counts.
 * @returns {Figures}
 */
function figures(data, tag, timed = tag) {
  /** @param {string} which */
  const ms = (which) => rounded(value(data, `http_req_duration{${timed}}`, which));
  return {
    count: value(data, `http_reqs{${tag}}`, 'count'),
    failed: value(data, `http_req_failed{${tag}}`, 'passes'),
    p50_ms: ms('med'),
    p95_ms: ms('p(95)'),
    p99_ms: ms('p(99)'),
  };
}

/**
 * A step holds if it was gone through to its end, and all that is asked of it was so.
 *
 * @param {Data} data
 * @param {Step} step
 * @param {Verdict[]} verdicts
 * @returns {StepFigures}
 */
function stepFigures(data, step, verdicts) {
  const { name, rate, seconds } = step;
  const tag = `step:${name}`;
  const found = figures(data, tag, `${tag},slo:${LATENCIES[0]?.name},expected_response:true`);
  const scenarios = Object.keys(PARTS).map((part) => scenarioOf(step, part));
  const dropped = scenarios.map((scenario) => value(data, `dropped_iterations{scenario:${scenario}}`, 'count'));
  const own = [`{${tag}}`, `{${tag},`, ...scenarios.map((scenario) => `{scenario:${scenario}}`)];
  const crossed = verdicts.some(({ metric, ok }) => !ok && own.some((tags) => metric.includes(tags)));
  return {
    name,
    rate,
    seconds,
    ...found,
    shed: value(data, `shed{${tag}}`, 'count'),
    dropped: dropped.reduce((sum, count) => sum + count, 0),
    held: !crossed && found.count >= 0.95 * rate * seconds,
  };
}

/**
 * @param {string} name
 * @param {Step[]} steps
 * @param {Data} data
 * @returns {Summary}
 */
function summarise(name, steps, data) {
  /** @type {Verdict[]} */
  const verdicts = Object.entries(data.metrics).flatMap(([metric, { values, thresholds }]) =>
    Object.entries(thresholds ?? {}).map(([threshold, { ok }]) => {
      const which = threshold.split(/[<>=]/)[0]?.trim() ?? '';
      return { metric, threshold, value: rounded(values[which] ?? 0), ok };
    }),
  );
  verdicts.sort((a, b) => Number(a.ok) - Number(b.ok) || (a.metric < b.metric ? -1 : 1));
  return {
    name,
    passed: verdicts.every(({ ok }) => ok),
    seconds: rounded(data.state.testRunDurationMs / 1000),
    totals: {
      requests: value(data, 'http_reqs', 'count'),
      requests_per_second: rounded(value(data, 'http_reqs', 'rate')),
      failed: value(data, 'http_req_failed', 'passes'),
      shed: value(data, 'shed', 'count'),
      dropped: value(data, 'dropped_iterations', 'count'),
    },
    routes: Object.fromEntries(
      Object.values(ROUTES)
        .filter((route) => data.metrics[`http_reqs{name:${route}}`])
        .map((route) => [route, figures(data, `name:${route}`)]),
    ),
    // Without those that it never came to.
    steps: steps.map((step) => stepFigures(data, step, verdicts)).filter(({ count }) => count),
    thresholds: verdicts,
  };
}

/**
 * Columns, the first to the left and the others to the right.
 *
 * @param {(string | number)[][]} rows
 */
function table(rows) {
  const texts = rows.map((row) => row.map(String));
  const widths = texts[0]?.map((_, at) => Math.max(...texts.map((row) => row[at]?.length ?? 0))) ?? [];
  const line = (/** @type {string[]} */ row) =>
    row.map((text, at) => (at === 0 ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0))).join('  ');
  return texts.map((row) => `  ${line(row).trimEnd()}\n`).join('');
}

const TIMES = ['p50 ms', 'p95 ms', 'p99 ms'];
/** @param {Figures} figures */
const times = ({ p50_ms, p95_ms, p99_ms }) => [p50_ms, p95_ms, p99_ms].map((ms) => ms.toFixed(1));

/** @param {Summary} summary */
function text({ name, passed, seconds, totals, routes, steps, thresholds }) {
  const { requests, requests_per_second, failed, shed, dropped } = totals;
  const head =
    `${name}: ${passed ? 'passed' : 'FAILED'} after ${seconds} s; ${requests} requests, ${requests_per_second} a second; ` +
    `${failed} failed, ${shed} turned away, ${dropped} iterations dropped`;
  const parts = [
    table([
      ['route', 'count', 'failed', ...TIMES],
      ...Object.entries(routes).map(([route, figures]) => [route, figures.count, figures.failed, ...times(figures)]),
    ]),
    table([
      ['step', 'rate', 'count', 'failed', 'turned away', 'dropped', ...TIMES],
      ...steps.map((step) => [step.name, step.rate, step.count, step.failed, step.shed, step.dropped, ...times(step)]),
    ]),
    table([
      ['threshold', 'is', '', ''],
      ...thresholds.map(({ metric, threshold, value, ok }) => [metric, value, threshold, ok ? 'ok' : 'CROSSED']),
    ]),
  ];
  const filled = [Object.keys(routes).length > 0, steps.length > 0, true];
  return `\n${head}\n\n${parts.filter((_, at) => filled[at]).join('\n')}\n`;
}

/**
 * A handleSummary for k6.
 *
 * @template {Partial<Summary>} More
 * @param {string} name
 * @param {Step[]} [steps]
 * @param {(summary: Summary) => { line: string, more: More }} [conclude] What this test is about beyond passing.
 * @returns {(data: Data) => Record<string, string>}
 */
export function summary(name, steps = [], conclude) {
  return (data) => {
    const found = summarise(name, steps, data);
    const conclusion = conclude?.(found);
    const summary = { ...found, ...conclusion?.more };
    /** @type {Record<string, string>} */
    const written = { stdout: text(summary) + (conclusion ? `${conclusion.line}\n\n` : '') };
    if (__ENV.SUMMARY) written[__ENV.SUMMARY] = JSON.stringify(summary, null, 2) + '\n';
    return written;
  };
}
