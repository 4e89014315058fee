import { isIP } from "node:net";

/** The address of a server. Without a host it listens on every interface, IPv4 and IPv6. */
export interface BindAddress {
  readonly host?: string;
  /** 0 lets the system choose a free port. */
  readonly port: number;
}

const MAX_PORT = 65_535;
/** A DNS name of up to 253 characters in labels, such as localhost. */
const HOST_NAME = /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$/;

/** The accepted forms of a bind address, for error texts. */
const BIND_ADDRESS_FORMS = ":8080, 127.0.0.1:8080, [::1]:8080, localhost:8080, or 0 to turn it off";

/**
 * Parses `:8080`, `127.0.0.1:0`, `[::1]:9`, `localhost:8080`. Returns undefined for `0`, which disables the server.
 * @throws RangeError for any other text.
 */
export function parseBindAddress(text: string): BindAddress | undefined {
  if (text === "0") return undefined;
  const parts = /^(?:\[(?<v6>[^\]]+)\]|(?<host>[^:[\]]*)):(?<port>\d{1,5})$/.exec(text)?.groups;
  const port = Number(parts?.port);
  const host = parts?.v6 ?? parts?.host ?? "";
  const hostIsValid = parts?.v6 !== undefined ? isIP(host) === 6 : host === "" || isHostOrIpv4(host);
  if (parts === undefined || port > MAX_PORT || !hostIsValid) {
    throw new RangeError(`"${text}" is not an address to listen on; write ${BIND_ADDRESS_FORMS}`);
  }
  return host === "" ? { port } : { host, port };
}

function isHostOrIpv4(host: string): boolean {
  // A text of digits and dots that is no IPv4 address (10.0.0.300) is a typing error, not a host name.
  return isIP(host) === 4 || (HOST_NAME.test(host) && !/^[\d.]+$/.test(host));
}
