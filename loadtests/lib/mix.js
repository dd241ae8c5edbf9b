/**
 * What staff ask for all day: lists, one service request of them, and new ones that move on. One iteration is one
 * request, so that a rate of arrival is a rate of requests.
 */

import exec from 'k6/execution';

import { address, send } from './api.js';
import { nth } from './company.js';
import { tokenOf } from './people.js';
import { phone } from './phone.js';
import { ROUTES } from './routes.js';

/** @typedef {import('./people.js').World} World */
/** @typedef {import('./people.js').Person} Person */

/** @typedef {Person & { known: number[] }} Colleague Who knows the numbers of service requests that they can see. */
/** @typedef {World & { people: Colleague[] }} Mix */

/** What the scenarios run, and its share of the requests. */
export const PARTS = Object.freeze({ list: 0.6, read: 0.3, change: 0.1 });

const PAGE = 50;
/** So many of each city can be read, where nobody has filled the database before. */
const FEWEST = 20;
const DAY = 86_400_000;
const SETUP = address(1 << 16);
/** The clients of the mix have other numbers than those of the journey: a call would join their service requests. */
const OTHERS = 500_000_000;

/** @param {number} days */
const ago = (days) => new Date(Date.now() - days * DAY).toISOString();

/**
 * What a list is asked for.
 *
 * @type {((city: string, turn: number) => Record<string, string>)[]}
 */
const FILTERS = [
  () => ({}),
  (city) => ({ city }),
  () => ({ status: 'new,callback,no_answer,waiting' }),
  () => ({ status: 'offered,accepted,en_route,in_progress' }),
  () => ({ created_from: ago(1) }),
  (_, turn) => ({ status: 'done', created_to: ago(turn % 700) }),
  () => ({ type: 'warranty' }),
  (_, turn) => ({ phone: String(turn % 100_000).padStart(5, '0') }),
  () => ({ text: 'кран' }),
];

/** Who may take a service request in, and which of them may call it off. */
const INTAKE = ['operator', 'marketer', 'manager', 'director'];
const PLANNERS = ['marketer', 'manager', 'director'];

/**
 * For setup(): what each of them can see.
 *
 * @param {World} world
 * @returns {Mix}
 */
export function withKnown(world) {
  /** @param {Person} person @returns {number[]} */
  const known = ({ token }) => {
    const query = { limit: 4 * PAGE };
    const page = send({
      method: 'GET',
      route: ROUTES.requests,
      query,
      from: SETUP,
      token,
      status: 200,
      warmUp: true,
    });
    return /** @type {{items: {id: number}[]}} */ (page.json()).items.map(({ id }) => id);
  };
  Object.entries(world.staff).forEach(([city, { operator }], at) => {
    const clerk = nth(operator, 0);
    for (let missing = FEWEST - known(clerk).length; missing > 0; missing -= 1) {
      const json = { city, phone: phone(world, 2 * OTHERS - FEWEST * at - missing) };
      const { token } = clerk;
      send({ method: 'POST', route: ROUTES.requests, json, from: SETUP, token, status: 201, warmUp: true });
    }
  });
  // A list: of what setup() returns, objects have their keys in an order that is another one each time.
  const people = Object.values(world.staff).flatMap((staff) => Object.values(staff).flat());
  return { ...world, people: people.map((person) => ({ ...person, known: known(person) })) };
}

/** Each virtual user is one person, and does something else each time. */
const turn = () => exec.vu.idInTest + exec.vu.iterationInInstance;

/** @param {Mix} mix */
export function list(mix) {
  const person = nth(mix.people, exec.vu.idInTest);
  const from = address(exec.vu.idInTest);
  const query = { limit: PAGE, ...nth(FILTERS, turn())(person.city, turn()) };
  send({ method: 'GET', route: ROUTES.requests, query, from, token: tokenOf(person, from), status: 200 });
}

/** @param {Mix} mix */
export function read(mix) {
  // Where the database is new, masters have nothing yet.
  const readers = mix.people.filter(({ known }) => known.length);
  const person = nth(readers, exec.vu.idInTest);
  const from = address(exec.vu.idInTest);
  const path = `${ROUTES.requests}/${nth(person.known, turn())}`;
  send({ method: 'GET', route: ROUTES.request, path, from, token: tokenOf(person, from), status: 200 });
}

/**
 * The service request that this virtual user has in hand, and the moves that are still to come.
 *
 * @type {{ path: string, moves: { who: Person, to: Record<string, string> }[] } | undefined}
 */
let inHand;

/**
 * Creates one, or moves the one in hand on; it ends called off, so that none is left to wait for a master.
 *
 * @param {Mix} mix
 */
export function change(mix) {
  const from = address(exec.vu.idInTest);
  const next = inHand?.moves.shift();
  if (inHand && next) {
    const { who, to } = next;
    const path = `${inHand.path}/transitions`;
    const moved = send({
      method: 'POST',
      route: ROUTES.transitions,
      path,
      json: to,
      from,
      token: tokenOf(who, from),
      status: 200,
    });
    if (moved.status !== 200 || !inHand.moves.length) inHand = undefined;
    return;
  }
  const intake = mix.people.filter(({ role }) => INTAKE.includes(role));
  const who = nth(intake, exec.vu.idInTest);
  const planners = intake.filter(({ city, role }) => city === who.city && PLANNERS.includes(role));
  const number = OTHERS + ((exec.vu.idInTest * 100_000 + exec.vu.iterationInInstance) % (OTHERS / 2));
  const json = { city: who.city, phone: phone(mix, number), description: 'the tap drips' };
  const created = send({
    method: 'POST',
    route: ROUTES.requests,
    json,
    from,
    token: tokenOf(who, from),
    status: 201,
  });
  if (created.status !== 201) return;
  const soon = new Date(Date.now() + DAY / 24).toISOString();
  inHand = {
    path: `${ROUTES.requests}/${created.json('id')}`,
    moves: [
      { who, to: { to: 'callback', callback_at: soon } },
      { who, to: { to: 'waiting', address: 'Krasny prospekt 1', meeting_at: soon } },
      { who: nth(planners, exec.vu.idInTest), to: { to: 'refused' } },
    ],
  };
}
