/**
 * What the company lives from, once, from the first ring to the money: a client calls, the PBX tells, the worker makes
 * a service request of it, an operator fills it in, a manager offers it to a master, the master goes and repairs, and
 * the director looks at the figures. Every scenario plays this; they differ in how many do so at a time.
 */

import { sha256 } from 'k6/crypto';
import exec from 'k6/execution';
import { Trend } from 'k6/metrics';
import { check, sleep } from 'k6';

import { address, send } from './api.js';
import { CITIES, demo, nth } from './company.js';
import { tokenOf } from './people.js';
import { phone } from './phone.js';
import { ROUTES } from './routes.js';

/** @typedef {import('./people.js').World} World */
/** @typedef {import('./people.js').Person} Person */

/** From the last delivery about a call until its service request can be seen. */
const callToRequest = new Trend('call_to_request', true);

/** How long the worker may take for a call. */
const PATIENCE = 10;
const LOOK_EVERY = 0.1;

/**
 * A delivery of the PBX, signed.
 *
 * @param {'call' | 'summary'} kind
 * @param {unknown} event
 * @param {string} from
 */
function deliver(kind, event, from) {
  const json = JSON.stringify(event);
  const sign = sha256(demo.mango_api_key + json + demo.mango_api_salt, 'hex');
  const form = { vpbx_api_key: demo.mango_api_key, sign, json };
  const path = `/api/v1/webhooks/telephony/mango/events/${kind}`;
  send({ method: 'POST', route: ROUTES.webhook, path, form, from, status: 200 });
}

/**
 * A call that was answered, from its first ring to its summary.
 *
 * @param {string} client
 * @param {string} line
 * @param {string} from
 */
function call(client, line, from) {
  const entry = `load-${crypto.randomUUID()}`;
  const ended = Math.floor(Date.now() / 1000);
  const began = ended - 90;
  const answered = began + 8;
  const staff = { extension: '101', number: 'sip:101@demo', line_number: line };
  const leg = {
    entry_id: entry,
    call_id: `${entry}/person`,
    location: 'abonent',
    from: { number: client },
    to: staff,
  };
  deliver('call', { ...leg, seq: 1, call_state: 'Appeared', timestamp: began, disconnect_reason: null }, from);
  deliver('call', { ...leg, seq: 2, call_state: 'Connected', timestamp: answered, disconnect_reason: null }, from);
  deliver(
    'summary',
    {
      entry_id: entry,
      line_number: line,
      from: { number: client },
      to: { extension: '101', number: 'sip:101@demo' },
      call_direction: 1,
      create_time: began,
      forward_time: began,
      talk_time: answered,
      end_time: ended,
      entry_result: 1,
      disconnect_reason: 1110,
    },
    from,
  );
}

/**
 * Waits until the worker has made a service request of the call, and tells its number.
 *
 * @param {string} client
 * @param {Person} operator
 * @param {string} from
 * @returns {number | undefined}
 */
function arrival(client, operator, from) {
  const began = Date.now();
  const query = { phone: `+${client}`, limit: 1 };
  for (;;) {
    const seen = send({
      method: 'GET',
      route: ROUTES.calls,
      query,
      from,
      token: tokenOf(operator, from),
      status: 200,
    });
    const id = seen.status === 200 ? seen.json('items.0.request_id') : undefined;
    const waited = Date.now() - began;
    const found = typeof id === 'number';
    if (found || waited > 1000 * PATIENCE) {
      check(found, { 'the call is a service request': (is) => is });
      if (found) callToRequest.add(waited);
      return found ? id : undefined;
    }
    sleep(LOOK_EVERY);
  }
}

/**
 * One client's story. Stops at the first thing that does not work: what comes after it could not either.
 *
 * @param {World} world
 */
export function journey(world) {
  const number = exec.vu.idInTest;
  const from = address(number);
  // The same people each time: whoever signs in again does so for few.
  const cities = CITIES.filter((city) => world.staff[city]);
  const city = nth(cities, number);
  const people = world.staff[city];
  if (!people) throw new Error(`nobody works in ${city}`);
  const round = Math.floor(number / cities.length);
  const operator = nth(people.operator, round);
  const manager = nth(people.manager, round);
  const director = nth(people.director, round);
  const master = nth(people.master, round);
  const line = nth(
    demo.lines.filter((line) => line.city === city),
    round,
  );

  const client = phone(world, exec.scenario.iterationInTest);
  call(client, line.phone, from);
  const id = arrival(client, operator, from);
  if (id === undefined) return;
  const path = `/api/v1/requests/${id}`;

  /**
   * @param {Person} who
   * @param {string} route
   * @param {{path?: string, query?: Record<string, string | number>}} [what]
   */
  const get = (who, route, what = {}) =>
    send({ method: 'GET', route, ...what, from, token: tokenOf(who, from), status: 200 });
  /** @param {Person} who @param {string} route @param {string} path @param {unknown} json @param {number} [status] */
  const post = (who, route, path, json, status = 200) =>
    send({ method: 'POST', route, path, json, from, token: tokenOf(who, from), status });
  /** @param {Person} who @param {Record<string, string>} to */
  const move = (who, to) => post(who, ROUTES.transitions, `${path}/transitions`, to).status === 200;

  get(operator, ROUTES.requests, { query: { status: 'new', city, limit: 50 } });
  get(operator, ROUTES.cities);
  const opened = get(operator, ROUTES.request, { path });
  if (opened.status !== 200) return;
  const filledIn = send({
    method: 'PATCH',
    route: ROUTES.request,
    path,
    json: { client_name: 'Load Test', description: 'the tap drips' },
    from,
    token: tokenOf(operator, from),
    etag: opened.headers.Etag,
    status: 200,
  });
  if (filledIn.status !== 200) return;
  post(operator, ROUTES.comments, `${path}/comments`, { body: 'will be at home all day' }, 201);
  const meeting_at = new Date(Date.now() + 3_600_000).toISOString();
  if (!move(operator, { to: 'waiting', address: 'Krasny prospekt 1', meeting_at })) return;

  get(manager, ROUTES.masters, { query: { city } });
  if (post(manager, ROUTES.assign, `${path}/assign`, { master_id: master.id }).status !== 200) return;

  get(master, ROUTES.me);
  get(master, ROUTES.requests, { query: { status: 'offered' } });
  for (const to of ['accepted', 'en_route', 'in_progress']) {
    if (!move(master, { to })) return;
  }
  if (!move(master, { to: 'done', result: '5000.00', expenses: '1000.00' })) return;

  get(operator, ROUTES.history, { path: `${path}/history` });
  get(manager, ROUTES.sla, { path: `${path}/sla` });
  const day = new Date(world.began).toISOString().slice(0, 10);
  get(director, ROUTES.callCentre, { query: { city, from: day, to: day } });
  get(director, ROUTES.business);
}

/** Somebody signs in, from wherever they are. */
export function login() {
  const turn = exec.scenario.iterationInTest;
  const { login, password } = nth(demo.users, turn);
  const json = { login, password, session: 'token' };
  // An address each: ten tries a minute from one are enough for anybody, and the limit is on.
  send({ method: 'POST', route: ROUTES.login, json, from: address((1 << 15) + turn), status: 200 });
}
