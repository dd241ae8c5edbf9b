/** @typedef {import('./people.js').World} World */

/**
 * A mobile number that no other client of this run or an earlier one has.
 *
 * @param {World} world
 * @param {number} turn
 */
export function phone(world, turn) {
  const space = 1_000_000_000n;
  // Coprime to the space: a bijection, so no two are the same.
  const number = ((BigInt(world.began) * 1_000n + BigInt(turn)) * 618_033_989n) % space;
  return `79${String(number).padStart(9, '0')}`;
}
