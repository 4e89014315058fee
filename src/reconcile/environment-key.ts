import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound } from "../kube/errors.ts";
import { SECRETS } from "../kube/resource.ts";
import type { Verdict } from "../sessions/api-health.ts";

/** What can stand in a header's value: visible ASCII. */
const HEADER_VALUE = /^[\x21-\x7e]+$/;

/** The environment key as its Secret has it now. */
export type KeyReading =
  | { readonly ok: true; readonly key: string }
  /** Nothing usable there; `lasting`: it is so, as opposed to could not be read. */
  | { readonly ok: false; readonly verdict: Verdict; readonly lasting: boolean };

/** Reads the key by name: Secrets are never watched. Never throws, and never repeats a value. */
export async function readEnvironmentKey(
  kube: KubeClient,
  namespace: string,
  ref: { readonly name: string; readonly key: string },
): Promise<KeyReading> {
  try {
    const secret = await kube.get(SECRETS, { namespace, name: ref.name });
    const value = secret.data?.[ref.key];
    if (value === undefined) {
      return failed("KeyMissing", `Secret ${ref.name} has no key ${ref.key}: add it, or mend api.keySecretRef.key`);
    }
    // A line break at the end is what `kubectl create secret --from-file` leaves there.
    const key = Buffer.from(value, "base64").toString("utf8").trim();
    if (!HEADER_VALUE.test(key)) {
      return failed(
        "KeyEmpty",
        `key ${ref.key} of Secret ${ref.name} is empty or holds what a header cannot carry: put the environment key there`,
      );
    }
    return { ok: true, key };
  } catch (error) {
    if (isNotFound(error)) {
      return failed(
        "KeySecretMissing",
        `Secret ${ref.name} is not in namespace ${namespace}: create it, or mend api.keySecretRef.name`,
      );
    }
    return { ok: false, lasting: false, verdict: { reason: "KeySecretUnreadable", message: errorText(error) } };
  }
}

function failed(reason: "KeyMissing" | "KeyEmpty" | "KeySecretMissing", message: string): KeyReading {
  return { ok: false, lasting: true, verdict: { reason, message } };
}
