import { signed } from "../fixtures/tokens.ts";

const secret = "the fault suite's secret, long enough for HS256";

export const jwtIssuer = {
  issuer: "test",
  audience: "tidegate",
  algorithm: "HS256",
  secret,
  scopes: ["org", "user:{sub}"],
};

/** A token that outlives the run. */
export function tokenOf(user: string): string {
  const exp = Math.floor(Date.now() / 1_000) + 86_400;
  return signed({ iss: "test", aud: "tidegate", sub: user, exp }, { alg: "HS256", secret });
}
