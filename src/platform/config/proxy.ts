/**
 * The proxy to `url` by the environment: HTTPS_PROXY for https, HTTP_PROXY for http, unless NO_PROXY names the host. In
 * lower case they count first. This machine itself is never reached through a proxy.
 */
export function proxyOf(url: string, env: NodeJS.ProcessEnv): string | undefined {
  const { protocol, hostname, port } = new URL(url);
  const named = variable(protocol === "https:" ? "https_proxy" : "http_proxy", env);
  if (named === undefined || isThisMachine(hostname)) return undefined;
  const usualPort = protocol === "https:" ? "443" : "80";
  const isDirect = (variable("no_proxy", env) ?? "")
    .split(/[\s,]+/)
    .some((entry) => covers(entry, hostname, port || usualPort));
  if (isDirect) return undefined;
  return named.includes("://") ? named : `http://${named}`;
}

function variable(name: string, env: NodeJS.ProcessEnv): string | undefined {
  return env[name] || env[name.toUpperCase()] || undefined;
}

function isThisMachine(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/** `*`, an IPv6 address with or without brackets, a host with all below it (`example.com`, `.example.com`, `*.example.com`), either with a port. */
function covers(entry: string, hostname: string, port: string): boolean {
  if (entry === "") return false;
  if (entry === "*") return true;
  // An IPv6 address has a port only behind brackets.
  if (/^[^[]*:.*:/.test(entry)) return hostname === `[${entry.toLowerCase()}]`;
  const [, name = "", only] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? [];
  if (only !== undefined && only !== port) return false;
  const domain = name.toLowerCase().replace(/^\*?\./, "");
  return domain !== "" && (hostname === domain || hostname.endsWith(`.${domain}`));
}
