import { BlockList, isIP } from "node:net";

/** Proxies from the environment variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY. */
export interface ProxySettings {
  readonly httpsProxy?: string | undefined;
  readonly httpProxy?: string | undefined;
  readonly noProxy?: string | undefined;
}

const DEFAULT_PORTS: Readonly<Record<string, string>> = { "https:": "443", "http:": "80" };

/**
 * Returns the proxy for a URL by the rules of Go (golang.org/x/net/http/httpproxy), which other programs in a cluster
 * follow. undici's NO_PROXY supports no networks: with the usual `10.0.0.0/8` it would send requests for the API
 * server's address inside a cluster, 10.96.0.1, to the proxy.
 */
export function proxyFor(url: URL, settings: ProxySettings): string | undefined {
  const proxy = url.protocol === "https:" ? settings.httpsProxy : settings.httpProxy;
  if (!proxy || isLoopback(url.hostname)) return undefined;
  const target = { host: bare(url.hostname), port: url.port || (DEFAULT_PORTS[url.protocol] ?? "") };
  const exempt = (settings.noProxy ?? "").split(",").some((entry) => matches(entry.trim().toLowerCase(), target));
  if (exempt) return undefined;
  return proxy.includes("://") ? proxy : `http://${proxy}`;
}

/** Loopback never uses a proxy: there it would mean another machine. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

interface Target {
  readonly host: string;
  readonly port: string;
}

function matches(entry: string, target: Target): boolean {
  if (entry === "") return false;
  if (entry === "*") return true;
  if (entry.includes("/")) return inNetwork(entry, target.host);
  const { host, port } = splitPort(entry);
  if (port !== undefined && port !== target.port) return false;
  if (isIP(host) !== 0) return host === target.host;
  // `.example.com` and `*.example.com` match subdomains; `example.com` matches itself and subdomains.
  const suffix = host.replace(/^\*/, "");
  if (suffix.startsWith(".")) return target.host.endsWith(suffix);
  return target.host === suffix || target.host.endsWith(`.${suffix}`);
}

function inNetwork(entry: string, host: string): boolean {
  const [network = "", bits = ""] = entry.split("/");
  const family = isIP(network);
  const prefix = Number(bits);
  const longest = family === 4 ? 32 : 128;
  if (family === 0 || isIP(host) !== family || !/^\d+$/.test(bits) || prefix > longest) return false;
  const type = family === 4 ? "ipv4" : "ipv6";
  const list = new BlockList();
  list.addSubnet(network, prefix, type);
  return list.check(host, type);
}

function splitPort(entry: string): { host: string; port: string | undefined } {
  if (isIP(entry) !== 0) return { host: entry, port: undefined };
  const [, host = entry, port] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? [];
  return { host: bare(host), port };
}

function bare(hostname: string): string {
  return hostname
    .replace(/^\[(.*)\]$/, "$1")
    .replace(/\.$/, "")
    .toLowerCase();
}
