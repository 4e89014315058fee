import * as z from "zod";
import { type DnsPods, parseDnsPods } from "../api/cluster-dns.ts";
import { DEFAULT_RUNTIME_CLASSES, type RuntimeClasses } from "../api/isolation.ts";
import { CIDR_PATTERN } from "../api/network-spec.ts";
import { NAME_PATTERN } from "../api/rule.ts";
import { parseBindAddress } from "../observe/bind-address.ts";
import { type Allowance, parseAllowance } from "../policy/pod-policy.ts";

/** A DNS label (RFC 1123), the form of namespace names. */
export const namespaceSchema = z
  .string()
  .regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, "a namespace has at most 63 lowercase letters, digits and dashes");

/** In the form that parseBindAddress reads; "0" is off. */
export const bindAddressSchema = z.string().superRefine((text, context) => {
  try {
    parseBindAddress(text);
  } catch (error) {
    context.addIssue({ code: "custom", message: error instanceof Error ? error.message : String(error) });
  }
});

/** `host:port`, with an IPv6 address in brackets. */
export const hostPortSchema = z.string().transform((text, context) => {
  const url = URL.parse(`http://${text}`);
  const [, port] = /:(\d+)$/.exec(text) ?? [];
  // The URL parser drops http's default port.
  if (url !== null && port !== undefined && url.href === new URL(`http://${url.host}`).href) {
    return { host: url.hostname.replaceAll(/[[\]]/g, ""), port: Number(port) };
  }
  context.addIssue({
    code: "custom",
    message: `"${text}" is not host:port; write for example berth-peers.berth-system.svc:8082`,
  });
  return z.NEVER;
});

/** Scheme, host and port of a URL, in the one spelling that `spec.api.baseUrl` must have too. */
export const originSchema = z.string().refine((text) => /^https?:/.test(text) && URL.parse(text)?.origin === text, {
  error: ({ input }) =>
    `"${input}" is not an origin; write only scheme, host and port, in lowercase and without the default port, such as https://api.anthropic.com`,
});

/** An IPv4 or IPv6 network. */
export const cidrSchema = z
  .string()
  .regex(new RegExp(CIDR_PATTERN), "write networks, such as 160.79.104.0/23 or 2607:6bc0::/48");

/** Pods of the cluster's DNS. */
export const dnsPodsSchema = z.string().transform((text, context): DnsPods => {
  const pods = parseDnsPods(text);
  if (pods !== null) return pods;
  const message = `"${text}" does not name Pods; write namespace/label=value, such as kube-system/k8s-app=kube-dns, and add :port if they do not listen on 53`;
  context.addIssue({ code: "custom", message });
  return z.NEVER;
});

/** One exception to the policy for Pod templates. */
export const allowanceSchema = z.string().transform((text, context): Allowance => {
  try {
    return parseAllowance(text);
  } catch (error) {
    const message = `"${text}": ${error instanceof Error ? error.message : String(error)}`;
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  }
});

/** The RuntimeClass of one isolation. */
export const runtimeClassSchema = z.string().transform((text, context): Partial<RuntimeClasses> => {
  const [isolation = "", name = "", ...more] = text.split("=");
  const isKnown = Object.hasOwn(DEFAULT_RUNTIME_CLASSES, isolation);
  if (isKnown && more.length === 0 && new RegExp(NAME_PATTERN).test(name)) return { [isolation]: name };
  const known = Object.keys(DEFAULT_RUNTIME_CLASSES).join(" or ");
  context.addIssue({
    code: "custom",
    message: `"${text}" is no RuntimeClass of ${known}; write for example Kata=kata-qemu`,
  });
  return z.NEVER;
});

/** Each shard is a Lease that is renewed 15 times a minute. More shards than replicas are useless. */
const MAX_SHARDS = 64;

/** The number of shards. */
export const shardsSchema = z
  .string()
  .regex(/^\d{1,2}$/, `write a whole number from 1 to ${MAX_SHARDS}`)
  .transform(Number)
  .refine((count) => count >= 1 && count <= MAX_SHARDS, `write a whole number from 1 to ${MAX_SHARDS}`);

/** YAML's words: true or false. */
export const booleanSchema = z.enum(["true", "false"], "write true or false").transform((text) => text === "true");

/** Splits "a, b,c"; drops empty parts and duplicates. */
export function listOf<T>(item: z.ZodType<T, string>) {
  return z
    .string()
    .transform((text) => [...new Set(text.split(",").map((part) => part.trim()))].filter((part) => part !== ""))
    .pipe(z.array(item).min(1, "the list is empty"));
}
