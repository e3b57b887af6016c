import { sql } from "kysely";

/**
 * The database is the one that it is served as. One that was put back to an earlier moment is not, until it was
 * recovered.
 */
export const servedHere = sql`(select served_as is null or served_as = database_identity() from installation)`;
