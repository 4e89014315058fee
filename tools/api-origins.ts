/**
 * What the chart's admission policy says of `spec.api.baseUrl`, in CEL: the operator's own rule (`originAllowed` in
 * src/settings/allowed-origins.ts, src/work/inner-addresses.ts), as far as it can be told without asking a resolver. The CEL of
 * Kubernetes 1.30 has no IP addresses: networks are regular expressions here.
 */
import { celString } from "../src/api/rule.ts";
import { INNER_IPV4, INNER_NAME } from "../src/work/inner-addresses.ts";

const OCTET_BITS = 8;
const OCTETS = 256;

/** Text that begins with an IPv4 address of this network. */
function patternOfNetwork(network: string, prefix: number): string {
  const octets = network.split(".").map(Number);
  const whole = Math.floor(prefix / OCTET_BITS);
  const parts = octets.slice(0, whole).map(String);
  const rest = prefix % OCTET_BITS;
  if (rest > 0) {
    const from = octets[whole] ?? 0;
    const size = OCTETS >> rest;
    parts.push(`(${Array.from({ length: size }, (_, at) => from + at).join("|")})`);
  }
  return `${parts.join("[.]")}${parts.length === octets.length ? "$" : "[.]"}`;
}

/** Of hosts that are IPv4 addresses. */
const INNER_IPV4_PATTERN = `^(${INNER_IPV4.map(([network, prefix]) => patternOfNetwork(network, prefix)).join("|")})`;

/** What is public of IPv6 is 2000::/3 but for some networks: 2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20. */
const PUBLIC_IPV6_PATTERN = "^[23][0-9a-f]{3}:";
const INNER_IPV6_PATTERN = "^(2001:(|[01]?[0-9a-f]{1,2}|db8):|2002:|3fff:(|[0-9a-f]{1,3}):)";

/** Addresses of both kinds at once, and zones: the operator looks into them. */
const EMBEDDING_PATTERN = "^(::ffff:|64:ff9b::)|[.%]";

const IPV4_PATTERN = "^[0-9]{1,3}([.][0-9]{1,3}){3}$";

const matches = (text: string, pattern: string) => `${text}.matches(${celString(pattern)})`;

const HOST = "variables.host";
const isInner = [
  `${HOST}.contains(':') ? !${matches(HOST, EMBEDDING_PATTERN)} && (!${matches(HOST, PUBLIC_IPV6_PATTERN)} || ${matches(HOST, INNER_IPV6_PATTERN)})`,
  `${matches(HOST, IPV4_PATTERN)} ? ${matches(HOST, INNER_IPV4_PATTERN)}`,
  `!${HOST}.contains('.') || ${matches(HOST, INNER_NAME.source)}`,
].join(" : ");

/**
 * Variables that the rule takes. `baseUrl` has its form, and its default, by the CRD.
 * @param allowed a list of origins in small letters, in CEL; empty: any with https at a public address
 */
export const originVariables = (allowed: string) => [
  { name: "allowedOrigins", expression: allowed },
  { name: "baseUrl", expression: "dyn(object).spec.?api.?baseUrl.orValue('').lowerAscii()" },
  { name: "port", expression: "variables.baseUrl.startsWith('https:') ? ':443' : ':80'" },
  {
    name: "origins",
    expression:
      "[variables.baseUrl, variables.baseUrl + variables.port, variables.baseUrl.endsWith(variables.port) ? variables.baseUrl.substring(0, variables.baseUrl.size() - variables.port.size()) : variables.baseUrl]",
  },
  { name: "hostname", expression: "isURL(variables.baseUrl) ? url(variables.baseUrl).getHostname() : ''" },
  {
    name: "host",
    expression:
      "variables.hostname.endsWith('.') ? variables.hostname.substring(0, variables.hostname.size() - 1) : variables.hostname",
  },
];

/** @param shown what is allowed, in words */
export const originRule = (shown: string) => ({
  expression: `!variables.newAddress || (variables.allowedOrigins.size() > 0 ? variables.origins.exists(origin, origin in variables.allowedOrigins) : variables.baseUrl.startsWith('https://') && !(${isInner}))`,
  message: `the operator may not send keys to spec.api.baseUrl (allowed: ${shown}): mend it, or have its origin named in the chart's value allowedApiOrigins`,
  reason: "Forbidden",
});
