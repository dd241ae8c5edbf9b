/**
 * Signing in. It happens once, in setup(), for everybody who works in the journey: hashing a password takes a quarter
 * of a second of a core, on purpose, and is measured by a scenario of its own.
 */

import { sleep } from 'k6';

import { address, send } from './api.js';
import { CITIES, staff } from './company.js';
import { ROUTES } from './routes.js';

/** @typedef {import('./company.js').Login} Login */
/** @typedef {import('./company.js').Role} Role */

/**
 * @typedef {object} Person
 * @property {number} id
 * @property {string} token
 */

/** @typedef {Record<'operator' | 'manager' | 'director' | 'master', Person[]>} Staff */

/** @typedef {{ staff: Record<string, Staff>, began: number }} World */

/** Tries to sign in; the server says how long to wait in between. */
const TRIES = 20;

/**
 * @param {Login} user
 * @param {string} from
 * @returns {Person}
 */
function signIn(user, from) {
  const json = { login: user.login, password: user.password, session: 'token' };
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const answer = send({ method: 'POST', route: ROUTES.login, json, from, status: 200, warmUp: true });
    if (answer.status === 200) {
      const token = String(answer.json('access_token'));
      const me = send({ method: 'GET', route: ROUTES.me, from, token, status: 200, warmUp: true });
      if (me.status !== 200) throw new Error(`${user.login} cannot ask who they are: ${me.status}`);
      return { id: Number(me.json('id')), token };
    }
    if (answer.status !== 429 && answer.status !== 503) {
      throw new Error(`${user.login} cannot sign in: ${answer.status} ${answer.error} ${answer.body}`);
    }
    sleep(Number(answer.headers['Retry-After'] ?? 1));
  }
  throw new Error(`${user.login} cannot sign in: the server stays too busy`);
}

/**
 * Signs in all who work in the journey.
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
      return signIn(user, address((1 << 16) + number));
    });
  /** @type {World['staff']} */
  const world = {};
  for (const city of CITIES.slice(0, cities)) {
    world[city] = {
      operator: all('operator', city),
      manager: all('manager', city),
      director: all('director', city),
      master: all('master', city),
    };
  }
  return { staff: world, began: Date.now() };
}
