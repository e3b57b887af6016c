import type { Path, Report } from "./report.ts";
import type { Config, OpsAuth, TenantAuth } from "./schema.ts";

const secretLengthMin = 32;

/** What the schema can't say about tokens: keys and secrets, and that one token never fits two tenants or /ops. */
export function checkAuth(config: Config, report: Report): void {
  const tenants = tenantAuths(config);
  for (const { path, auth } of tenants) checkKeys(auth, path, report);
  if (config.ops) checkKeys(config.ops.auth, ["ops", "auth"], report);
  checkOps(config, tenants, report);
  tenants.forEach((one, index) => {
    for (const other of tenants.slice(0, index)) checkPair(one, other, report);
  });
}

interface TenantAuthAt {
  tenantId: string;
  path: Path;
  auth: TenantAuth;
}

function tenantAuths({ tenants }: Config): TenantAuthAt[] {
  return Object.entries(tenants ?? {}).flatMap(([tenantId, tenant]) =>
    tenant?.auth ? [{ tenantId, path: ["tenants", tenantId, "auth"], auth: tenant.auth }] : [],
  );
}

function checkKeys(auth: OpsAuth | TenantAuth, path: Path, report: Report): void {
  if (report.sound(path, "secret")) checkSecret(auth.secret, [...path, "secret"], report);
  if (report.sound(path, "jwksUri")) checkJwksUri(auth.jwksUri, [...path, "jwksUri"], report);
  if (!report.sound(path, "algorithm")) return;
  const symmetric = auth.algorithm === "HS256";
  const [needed, unfit] = symmetric ? (["secret", "jwksUri"] as const) : (["jwksUri", "secret"] as const);
  if (!(needed in auth)) report.problem(path, `algorithm ${auth.algorithm} needs \`${needed}\``);
  if (unfit in auth) report.problem([...path, unfit], `algorithm ${auth.algorithm} takes no \`${unfit}\``);
}

function checkSecret(secret: string | undefined, path: Path, report: Report): void {
  if (secret !== undefined && secret.length < secretLengthMin)
    report.problem(path, `the secret is shorter than ${secretLengthMin} characters`);
}

function checkJwksUri(uri: string | undefined, path: Path, report: Report): void {
  if (uri !== undefined && !isHttpUrl(uri)) report.problem(path, "must be an absolute http or https URL");
}

export function isHttpUrl(text: string): boolean {
  return /^https?:\/\//i.test(text) && URL.canParse(text);
}

function checkOps({ ops }: Config, tenants: TenantAuthAt[], report: Report): void {
  if (!ops) return;
  const path = ["ops", "auth"];
  for (const { tenantId, path: tenantPath, auth } of tenants) {
    const comparable = report.sound(tenantPath, "issuer", "secret", "jwksUri");
    if (!comparable || !report.sound(path, "issuer", "secret", "jwksUri")) continue;
    if (ops.auth.secret !== undefined && ops.auth.secret === auth.secret)
      report.problem(
        [...path, "secret"],
        `tenant \`${tenantId}\` has the same secret: its tokens could pass for an operator's`,
      );
    if (
      ops.auth.issuer === auth.issuer &&
      ops.auth.jwksUri !== undefined &&
      ops.auth.jwksUri === auth.jwksUri
    )
      report.problem(
        [...path, "issuer"],
        `tenant \`${tenantId}\` has the same issuer and keys: its tokens could pass for an operator's`,
      );
  }
}

function checkPair(one: TenantAuthAt, other: TenantAuthAt, report: Report): void {
  const comparable = [one, other].every(({ path }) => report.sound(path, "issuer", "match", "secret"));
  if (!comparable) return;
  if (one.auth.issuer !== other.auth.issuer) {
    if (one.auth.secret !== undefined && one.auth.secret === other.auth.secret)
      report.warning(
        [...one.path, "secret"],
        `the same secret as tenant \`${other.tenantId}\`, but another issuer`,
      );
  } else if (!contradict(one.auth.match, other.auth.match))
    report.problem(
      [...one.path, "issuer"],
      `a token of this issuer could belong to tenant \`${other.tenantId}\` as well; give both a \`match\` that differs in a claim`,
    );
}

function contradict(one: Record<string, string> = {}, other: Record<string, string> = {}): boolean {
  return Object.entries(one).some(([claim, value]) => Object.hasOwn(other, claim) && other[claim] !== value);
}
