/**
 * One-dimensional arrays in PostgreSQL's binary format, for parameters with many elements: half the bytes of the text
 * format, nothing to quote and nothing to parse. The driver sends a Buffer as it is, so the statement has to cast the
 * parameter: `$1::uuid[]`.
 *
 * The format is that of `array_recv`: dimensions, a null flag, the element's type, length and lower bound, then each
 * element behind its length, big-endian, with length -1 for null.
 */

const oids = { bytea: 17, int8: 20, text: 25, uuid: 2950 };
const headerBytes = 20;
const lengthBytes = 4;

/** `uuid[]`. Every element is a UUID in its usual spelling; anything else makes a wrong one. */
export function uuidArray(uuids: readonly (string | null)[]): Buffer {
  return fixedArray(oids.uuid, 16, uuids, writeHex);
}

/** `bytea[]`, each element from hex, all of the same length. */
export function hexArray(bytes: readonly string[]): Buffer {
  return fixedArray(oids.bytea, (bytes[0]?.length ?? 0) / 2, bytes, writeHex);
}

/** `bigint[]` of safe integers. */
export function bigintArray(numbers: readonly (number | null)[]): Buffer {
  return fixedArray(oids.int8, 8, numbers, (into, at, value) => {
    into.writeInt32BE(Math.floor(value / 2 ** 32), at);
    into.writeUInt32BE(value >>> 0, at + 4);
  });
}

/** `text[]`. */
export function textArray(texts: readonly (string | null)[]): Buffer {
  const encoded = new Map<string, Buffer>();
  return variableArray(
    oids.text,
    texts.map((text) => {
      if (text === null) return null;
      const bytes = encoded.get(text) ?? Buffer.from(text);
      encoded.set(text, bytes);
      return bytes;
    }),
  );
}

/** `bytea[]`. */
export function byteaArray(values: readonly (Buffer | null)[]): Buffer {
  return variableArray(oids.bytea, values);
}

function fixedArray<T>(
  oid: number,
  bytes: number,
  values: readonly (T | null)[],
  write: (into: Buffer, at: number, value: T) => void,
): Buffer {
  const array = Buffer.allocUnsafe(headerBytes + values.length * (lengthBytes + bytes));
  let at = writeHeader(array, oid, values.length);
  for (const value of values) {
    at = array.writeInt32BE(value === null ? -1 : bytes, at);
    if (value === null) continue;
    write(array, at, value);
    at += bytes;
  }
  return array.subarray(0, at);
}

function variableArray(oid: number, values: readonly (Buffer | null)[]): Buffer {
  const bytes = values.reduce((sum, value) => sum + lengthBytes + (value?.length ?? 0), headerBytes);
  const array = Buffer.allocUnsafe(bytes);
  let at = writeHeader(array, oid, values.length);
  for (const value of values) {
    at = array.writeInt32BE(value?.length ?? -1, at);
    if (value !== null) at += value.copy(array, at);
  }
  return array;
}

function writeHeader(into: Buffer, oid: number, elements: number): number {
  let at = into.writeInt32BE(1, 0);
  // The null flag is only a hint.
  at = into.writeInt32BE(1, at);
  at = into.writeInt32BE(oid, at);
  at = into.writeInt32BE(elements, at);
  return into.writeInt32BE(1, at);
}

const DASH = 0x2d;

/** Digits of both cases; dashes are passed over. */
function writeHex(into: Buffer, start: number, hex: string): void {
  let at = start;
  for (let digit = 0; digit < hex.length; digit += 2) {
    if (hex.charCodeAt(digit) === DASH) digit++;
    into[at++] = (nibble(hex.charCodeAt(digit)) << 4) | nibble(hex.charCodeAt(digit + 1));
  }
}

/** The low bits of `0`–`9` are the digit; those of `A`–`F` and `a`–`f` are nine less. */
function nibble(code: number): number {
  return (code & 0xf) + (code >> 6) * 9;
}
