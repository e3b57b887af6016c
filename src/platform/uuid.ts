export const uuidPattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

const tempId = /^urn:uuid:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/i;

/** The UUID, in lower case, of a temp ID `urn:uuid:<uuid>`; undefined for anything else. */
export function tempUuid(value: string): string | undefined {
  return value.length === 45 ? tempId.exec(value)?.[1]?.toLowerCase() : undefined;
}

/** The temp ID of a UUID. */
export function toTempId(uuid: string): string {
  return `urn:uuid:${uuid}`;
}
