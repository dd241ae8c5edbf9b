/**
 * Signing in. It happens once, in setup(), for everybody: hashing a password takes a quarter of a second of a core, on
 * purpose, and is measured by a scenario of its own.
 */

import exec from 'k6/execution';
import { sleep } from 'k6';

import { address, send } from './api.js';
import { CITIES, demo, staff } from './company.js';
import { ROUTES } from './routes.js';

/** @typedef {import('./company.js').Login} Login */
/** @typedef {import('./company.js').Role} Role */

/**
 * @typedef {object} Person
 * @property {number} id
 * @property {string} login
 * @property {Role} role
 * @property {string} city
 * @property {string} token
 * @property {number} issued
 * @property {number} expires
 */

/** @typedef {Record<'operator' | 'manager' | 'marketer' | 'director' | 'master', Person[]>} Staff */

/** @typedef {{ staff: Record<string, Staff>, began: number }} World */

/** Tries to sign in; the server says how long to wait in between. */
const TRIES = 20;

/**
 * @param {Login} user
 * @param {string} city
 * @param {string} from
 * @returns {Person}
 */
function signIn(user, city, from) {
  const json = { login: user.login, password: user.password, session: 'token' };
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const answer = send({ method: 'POST', route: ROUTES.login, json, from, status: 200, warmUp: true });
    if (answer.status === 200) {
      const token = String(answer.json('access_token'));
      const expires = Date.parse(String(answer.json('expires_at')));
      const me = send({ method: 'GET', route: ROUTES.me, from, token, status: 200, warmUp: true });
      if (me.status !== 200) throw new Error(`${user.login} cannot ask who they are: ${me.status}`);
      const { login, role } = user;
      return { id: Number(me.json('id')), login, role, city, token, issued: Date.now(), expires };
    }
    if (answer.status !== 429 && answer.status !== 503) {
      throw new Error(`${user.login} cannot sign in: ${answer.status} ${answer.error} ${answer.body}`);
    }
    sleep(Number(answer.headers['Retry-After'] ?? 1));
  }
  throw new Error(`${user.login} cannot sign in: the server stays too busy`);
}

/**
 * This virtual user's own sessions: an access token ends after minutes, and virtual users share nothing.
 *
 * @type {Map<string, Person>}
 */
const sessions = new Map();

/**
 * A token that is still good. In a run that outlasts the first ones, each virtual user signs in again when half of the
 * time or more is over, at a moment of its own: all at once they would be an attack on the cores.
 *
 * @param {Person} person
 * @param {string} from
 * @returns {string}
 */
export function tokenOf(person, from) {
  const held = sessions.get(person.login) ?? person;
  // By the golden ratio, whose multiples are spread evenly.
  const share = 0.5 + 0.4 * ((exec.vu.idInTest * 0.618_034) % 1);
  if (Date.now() < held.issued + share * (held.expires - held.issued)) return held.token;
  const user = demo.users.find(({ login }) => login === person.login);
  if (!user) throw new Error(`${person.login} is nobody's login`);
  const renewed = signIn(user, person.city, from);
  sessions.set(person.login, renewed);
  return renewed.token;
}

/**
 * Signs in all who work there.
 *
 * @param {number} cities How many of them, at most.
 * @returns {World}
 */
export function signInAll(cities = CITIES.length) {
  let number = 0;
  /** @param {Role} role @param {string} city */
  const all = (role, city) =>
    staff(role, city).map((user) => {
      number += 1;
      return signIn(user, city, address((1 << 16) + number));
    });
  /** @type {World['staff']} */
  const world = {};
  for (const city of CITIES.slice(0, cities)) {
    world[city] = {
      operator: all('operator', city),
      manager: all('manager', city),
      marketer: all('marketer', city),
      director: all('director', city),
      master: all('master', city),
    };
  }
  return { staff: world, began: Date.now() };
}
