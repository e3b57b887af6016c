/** The tables as Kysely sees them; `migrations/` holds the truth. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface Database {}
