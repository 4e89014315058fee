import { BlockList, isIP } from "node:net";

/**
 * IPv4 ranges that are not public: private networks, this machine, cloud metadata. Taken from the registries of
 * special-purpose addresses (https://www.iana.org/assignments/iana-ipv4-special-registry, RFC 6890).
 */
export const INNER_IPV4: readonly (readonly [network: string, prefix: number])[] = [
  ["0.0.0.0", 8], // this host, unspecified
  ["10.0.0.0", 8], // private
  ["100.64.0.0", 10], // carrier-grade NAT; a cloud's metadata at 100.100.100.200
  ["127.0.0.0", 8], // loopback
  ["168.63.129.16", 32], // Azure's own services, at a public address that leads to the host everywhere
  ["169.254.0.0", 16], // link-local; metadata of most clouds at 169.254.169.254
  ["172.16.0.0", 12], // private
  ["192.0.0.0", 24], // protocol assignments; a cloud's metadata at 192.0.0.192
  ["192.0.2.0", 24], // documentation
  ["192.88.99.0", 24], // 6to4 relays
  ["192.168.0.0", 16], // private
  ["198.18.0.0", 15], // benchmarks
  ["198.51.100.0", 24], // documentation
  ["203.0.113.0", 24], // documentation
  ["224.0.0.0", 4], // multicast
  ["240.0.0.0", 4], // reserved, broadcast
];

/**
 * The public part of IPv6. Everything else is loopback, link-local, ULA (metadata at fd00:ec2::254), multicast, or
 * unassigned.
 */
const PUBLIC_IPV6: readonly (readonly [network: string, prefix: number])[] = [["2000::", 3]];

/** The parts of that range that are not public (https://www.iana.org/assignments/iana-ipv6-special-registry). */
const INNER_IPV6: readonly (readonly [network: string, prefix: number])[] = [
  ["2001::", 23], // protocol assignments: Teredo, benchmarks, ORCHID
  ["2001:db8::", 32], // documentation
  ["2002::", 16], // 6to4, which embeds any IPv4 address
  ["3fff::", 20], // documentation
];

/** IPv6 prefixes that embed an IPv4 address in the last 32 bits: IPv4-mapped, and NAT64 (RFC 6052). */
const EMBEDDING = ["::ffff:", "64:ff9b::"];
const EMBEDDED_AT = 96;

const inner = new BlockList();
const publicIpv6 = new BlockList();
for (const [network, prefix] of INNER_IPV4) {
  inner.addSubnet(network, prefix, "ipv4");
  for (const form of EMBEDDING) inner.addSubnet(`${form}${network}`, EMBEDDED_AT + prefix, "ipv6");
}
for (const [network, prefix] of INNER_IPV6) inner.addSubnet(network, prefix, "ipv6");
for (const [network, prefix] of PUBLIC_IPV6) publicIpv6.addSubnet(network, prefix, "ipv6");
for (const form of EMBEDDING) publicIpv6.addSubnet(`${form}0.0.0.0`, EMBEDDED_AT, "ipv6");

/** Whether an IP address is inner. A text that is not an IP address counts as inner, so that nothing connects to it. */
export function isInnerAddress(address: string): boolean {
  // A zone id names an interface of this machine; it does not change the address.
  const [bare = ""] = address.split("%");
  switch (isIP(bare)) {
    case 4:
      return inner.check(bare, "ipv4");
    case 6:
      return !publicIpv6.check(bare, "ipv6") || inner.check(bare, "ipv6");
    default:
      return true;
  }
}

/**
 * Suffixes of names that are not in public DNS (RFC 6761, 6762 and 8375, ICANN's `internal`), and of a cluster's
 * Services.
 */
export const INNER_NAME = /(^|\.)(localhost|local|internal|home\.arpa|svc)$/;

/**
 * Whether the host of a URL is inner without resolving it: an inner address, a single label, or a name that only a
 * private resolver knows. Expects the form of `URL.hostname`, which normalizes every IPv4 address. All other names must
 * be resolved to tell.
 */
export function isInnerHost(hostname: string): boolean {
  const host = hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.+$/, "");
  if (isIP(host.split("%")[0] ?? "") !== 0) return isInnerAddress(host);
  return !host.includes(".") || INNER_NAME.test(host.toLowerCase());
}
