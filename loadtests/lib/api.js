/**
 * Talking to the server: every request carries the address of its client, its route as a tag, and each POST a key of
 * its own, so that it could be sent again.
 */

import http from 'k6/http';
import { Counter, Rate } from 'k6/metrics';
import { check } from 'k6';

import { latencyOf } from './slo.js';

/** @typedef {import('k6/http').RefinedResponse<'text'>} Answer */

const BASE = __ENV.BASE_URL ?? 'http://127.0.0.1:8000';

/** Fails as the errors SLO has it: 5xx, or no answer. */
http.setResponseCallback(http.expectedStatuses({ min: 200, max: 499 }));
/** While warming up, who is turned away comes again: that is no failure. */
const PATIENT = http.expectedStatuses({ min: 200, max: 499 }, 503);

/** Turned away for now: 429 or 503. */
const shed = new Counter('shed');
/** What no overload excuses: no answer, a 5xx other than 503, or turned away without being told until when. */
const broken = new Rate('broken');

/** Of a server that is down, more lines than these would say the same. */
const WARNINGS = 3;
let warnings = 0;

/**
 * For the self-test: the route whose tag, or the SLO whose tag, is to be misspelt.
 */
const MISSPELT = __ENV.MISSPELT;

/**
 * @param {string} tag
 */
function spelt(tag) {
  return tag === MISSPELT ? `${tag}~` : tag;
}

/**
 * An address for a client: the range is reserved for tests like this one (RFC 2544). The server believes it because it
 * trusts the proxy that it comes from.
 *
 * @param {number} number
 */
export function address(number) {
  return `198.${18 + ((number >> 16) & 1)}.${(number >> 8) & 255}.${number & 255}`;
}

/**
 * @typedef {object} Request
 * @property {'GET' | 'POST' | 'PATCH'} method
 * @property {string} route As the server names it.
 * @property {string} [path] Where the route has parameters: the path with their values.
 * @property {Record<string, string | number>} [query]
 * @property {unknown} [json] The body.
 * @property {Record<string, string>} [form] The body, as a form.
 * @property {string} from The address of the client.
 * @property {string | undefined} [token]
 * @property {string | undefined} [etag] The version that is changed.
 * @property {number} status The one that is expected.
 * @property {boolean} [warmUp] Not a part of what is measured.
 */

/**
 * Sends a request, and checks its status.
 *
 * @param {Request} request
 * @returns {Answer}
 */
export function send({ method, route, path, query, json, form, from, token, etag, status, warmUp = false }) {
  /** @type {Record<string, string>} */
  const headers = { 'X-Forwarded-For': from };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (etag) headers['If-Match'] = etag;
  if (json !== undefined) headers['Content-Type'] = 'application/json';
  if (method === 'POST' && token) headers['Idempotency-Key'] = crypto.randomUUID();

  /** @type {Record<string, string>} */
  const tags = { name: warmUp ? 'warm-up' : spelt(route) };
  const slo = latencyOf(route);
  if (slo && !warmUp) tags.slo = spelt(slo);

  const text = Object.entries(query ?? {})
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');
  const url = BASE + (path ?? route) + (text && `?${text}`);
  const body = json === undefined ? (form ?? null) : JSON.stringify(json);
  const how = warmUp ? { responseCallback: PATIENT } : {};
  const answer = http.request(method, url, body, { headers, tags, timeout: '15s', responseType: 'text', ...how });
  if (!warmUp) judge(answer, `${method} ${route}`, status);
  return answer;
}

/**
 * Counts what came of a request.
 *
 * @param {Answer} answer
 * @param {string} what
 * @param {number} expected
 */
function judge(answer, what, expected) {
  const { status } = answer;
  const isShed = status === 429 || status === 503;
  if (isShed) shed.add(1);
  broken.add(isShed ? !answer.headers['Retry-After'] : status === 0 || status >= 500);
  const holds = check(answer, { [`${what} is ${expected}`]: ({ status: is }) => is === expected });
  if (holds || isShed || warnings >= WARNINGS) return;
  warnings += 1;
  console.warn(`${what}: ${status} ${answer.error} ${answer.body ?? ''}`);
}
