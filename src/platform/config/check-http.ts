import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { createSecureContext } from "node:tls";

import { isHttpUrl } from "./check-auth.ts";
import { loadModule } from "./load-module.ts";
import { proxyOf } from "./proxy.ts";
import type { Path, Report } from "./report.ts";
import type { TlsConfig, UpstreamConfig } from "./upstream-schema.ts";

/** Where the configuration was read, and what from. */
export interface Surroundings {
  file: string;
  env: NodeJS.ProcessEnv;
}

/** What the schema can't say about how an upstream is called: tokens, TLS, the proxy, the signing hook. */
export function checkHttp(
  upstream: UpstreamConfig,
  path: Path,
  report: Report,
  { file }: Surroundings,
): void {
  checkTokens(upstream, path, report);
  if ("tls" in upstream && report.sound(path, "tls")) checkTls(upstream, [...path, "tls"], report, file);
  if (upstream.proxy !== undefined && report.sound(path, "proxy"))
    checkProxy(upstream.proxy, [...path, "proxy"], report);
  if (upstream.sign !== undefined && report.sound(path, "sign"))
    checkHook(besides(file, upstream.sign), [...path, "sign"], report);
}

/** Files are named from the configuration file on; the environment's proxy stands where none is configured. */
export function completeHttp(upstream: UpstreamConfig, { file, env }: Surroundings): void {
  const { auth, tls } = upstream;
  for (const key of ["cert", "key", "ca"] as const)
    if (tls?.[key] !== undefined) tls[key] = pemOf(tls[key], file);
  for (const key of ["sign", "module"] as const)
    if (upstream[key] !== undefined) upstream[key] = besides(file, upstream[key]);
  if (upstream.baseUrl !== "") setProxy(upstream, upstream.baseUrl, env);
  if (auth?.type === "oauth2ClientCredentials") setProxy(auth, auth.tokenUrl, env);
}

function setProxy(holder: { proxy?: string }, url: string, env: NodeJS.ProcessEnv): void {
  const proxy = holder.proxy ?? proxyOf(url, env);
  if (proxy === undefined || proxy === "none") delete holder.proxy;
  else holder.proxy = proxy;
}

function checkTokens({ auth }: UpstreamConfig, path: Path, report: Report): void {
  if (auth?.type !== "oauth2ClientCredentials") return;
  const at = [...path, "auth"];
  if (report.sound(at, "tokenUrl") && !isHttpUrl(auth.tokenUrl))
    report.problem([...at, "tokenUrl"], "must be an absolute http or https URL");
  if (auth.proxy !== undefined && report.sound(at, "proxy")) checkProxy(auth.proxy, [...at, "proxy"], report);
  for (const name of ["grant_type", "client_id", "client_secret", "scope"])
    if (Object.hasOwn(auth.parameters ?? {}, name))
      report.problem([...at, "parameters", name], "is set by the gateway itself");
}

function checkProxy(proxy: string, path: Path, report: Report): void {
  if (proxy !== "none" && !isHttpUrl(proxy))
    report.problem(path, "must be an absolute http or https URL, or none");
}

function checkTls({ tls = {}, baseUrl }: UpstreamConfig, path: Path, report: Report, file: string): void {
  if (!/^https:/i.test(baseUrl)) report.warning(path, "is for https, and `baseUrl` is not");
  if ((tls.cert === undefined) !== (tls.key === undefined))
    report.problem(path, "`cert` and `key` belong together");
  let isReadable = true;
  for (const key of ["cert", "key", "ca"] as const)
    if (tls[key] !== undefined) {
      const reason = unreadable(tls[key], file);
      if (reason === undefined) continue;
      isReadable = false;
      report.problem([...path, key], reason);
    }
  if (isReadable) checkMaterial(tls, path, report, file);
}

function unreadable(value: string, file: string): string | undefined {
  try {
    const pem = pemOf(value, file);
    return pem.includes("-----BEGIN ") ? undefined : "is not PEM";
  } catch (error) {
    return `the file can't be read (${(error as NodeJS.ErrnoException).code})`;
  }
}

function checkMaterial(tls: TlsConfig, path: Path, report: Report, file: string): void {
  const pems = (["cert", "key", "ca"] as const).flatMap((key) =>
    tls[key] === undefined ? [] : [[key, pemOf(tls[key], file)]],
  );
  const { passphrase } = tls;
  try {
    createSecureContext({ ...Object.fromEntries(pems), ...(passphrase !== undefined && { passphrase }) });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    report.problem(path, `does not make a TLS context: ${code ?? message}`);
  }
}

function pemOf(value: string, file: string): string {
  return value.includes("-----BEGIN ")
    ? value.replaceAll(String.raw`\n`, "\n")
    : readFileSync(besides(file, value), "utf8");
}

function checkHook(hook: string, path: Path, report: Report): void {
  const loaded = loadModule(hook);
  if ("reason" in loaded) return report.problem(path, loaded.reason);
  const all = Object.values(loaded.exports);
  if (typeof loaded.exports["default"] === "function" || (all.length === 1 && typeof all[0] === "function"))
    return;
  report.problem(path, "must export one function: as the default export, or nothing else");
}

function besides(file: string, path: string): string {
  return resolve(dirname(file), path);
}
