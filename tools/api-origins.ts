/**
 * The rule for `spec.api.baseUrl` in the chart's admission policy, in CEL. It is the operator's own rule
 * (`originAllowed` in src/settings/allowed-origins.ts, src/work/inner-addresses.ts), as far as it applies without DNS.
 * CEL in Kubernetes 1.30 has no IP functions, so networks are regular expressions here.
 */
import { celString } from "../src/api/rule.ts";
import { INNER_IPV4, INNER_NAME } from "../src/work/inner-addresses.ts";

const OCTET_BITS = 8;
const OCTETS = 256;

/** A pattern of text that begins with an IPv4 address in this network. */
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

/** For hosts that are IPv4 addresses. */
const INNER_IPV4_PATTERN = `^(${INNER_IPV4.map(([network, prefix]) => patternOfNetwork(network, prefix)).join("|")})`;

/** Public IPv6 addresses are 2000::/3, except for these networks: 2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20. */
const PUBLIC_IPV6_PATTERN = "^[23][0-9a-f]{3}:";
const INNER_IPV6_PATTERN = "^(2001:(|[01]?[0-9a-f]{1,2}|db8):|2002:|3fff:(|[0-9a-f]{1,3}):)";

/** IPv6 addresses that embed an IPv4 address, and addresses with a zone: only the operator checks them. */
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
 * The variables that the rule uses. The CRD guarantees the form of `baseUrl` and sets its default.
 * @param allowed a list of lowercase origins, in CEL; empty: any https origin at a public address
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

/** The rule that the address is allowed, or has not changed. */
export const ORIGIN_FITS = `!variables.newAddress || (variables.allowedOrigins.size() > 0 ? variables.origins.exists(origin, origin in variables.allowedOrigins) : variables.baseUrl.startsWith('https://') && !(${isInner}))`;

/** The message about an address that is not allowed, in CEL. */
export const ORIGIN_MESSAGE = `'spec.api.baseUrl: the operator may not send keys to ' + variables.baseUrl + ' (allowed: ' + (variables.allowedOrigins.size() > 0 ? variables.allowedOrigins.join(', ') : 'any https origin at a public address') + ${celString("); correct it, or add its origin to the chart's allowedApiOrigins.")}`;
