/**
 * What a JSON string or number says, as text: a number's digits as they were sent, also beyond 2^53. undefined for
 * every other value.
 */
export function toText(token: string): string | undefined {
  if (token.startsWith('"')) return JSON.parse(token) as string;
  return /^-?\d/.test(token) ? token : undefined;
}
