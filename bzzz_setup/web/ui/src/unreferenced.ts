/** The form's package follows references between schemas by a whole library for addresses; the schemas here have none. */
export default {
  equal: (one: unknown, other: unknown) => one === other,
  resolve: (_base: string, reference: string) => reference,
};
