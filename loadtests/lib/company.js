/**
 * The company that is put under load: the demo's (`switchboard serve --demo`), whose logins and lines are in demo.json.
 */

/** @typedef {'admin' | 'director' | 'manager' | 'marketer' | 'operator' | 'master'} Role */

/**
 * @typedef {object} Login
 * @property {string} login
 * @property {string} password
 * @property {Role} role
 * @property {string[]} cities
 */

/**
 * @typedef {object} Demo
 * @property {string} mango_api_key
 * @property {string} mango_api_salt
 * @property {Login[]} users
 * @property {{phone: string, city: string}[]} lines
 */

const file = __ENV.LOGINS;
if (!file) throw new Error('LOGINS is not set: it names the demo.json of the server that BASE_URL names');

/** @type {Demo} */
export const demo = JSON.parse(open(file));

/** Codes of the cities, in a fixed order. */
export const CITIES = [...new Set(demo.lines.map((line) => line.city))];

/**
 * Those of a role in a city.
 *
 * @param {Role} role
 * @param {string} city
 */
export function staff(role, city) {
  return demo.users.filter((user) => user.role === role && user.cities.includes(city));
}

/**
 * One of several, in turn.
 *
 * @template T
 * @param {readonly T[]} all
 * @param {number} turn
 * @returns {T}
 */
export function nth(all, turn) {
  const one = all[turn % all.length];
  if (one === undefined) throw new Error('there is nothing to choose from');
  return one;
}
