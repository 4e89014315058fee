import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isForbidden, isNotFound } from "../kube/errors.ts";
import { SECRETS } from "../kube/resource.ts";
import type { Verdict } from "../queue/api-health.ts";

/** What can stand in a header's value: visible ASCII. */
const HEADER_VALUE = /^[\x21-\x7e]+$/;

/** The environment key as its Secret has it now. */
export type KeyReading =
  /** `version` changes with every change of the Secret, also one that leaves the key as it is. */
  | { readonly ok: true; readonly key: string; readonly version: string }
  /** Nothing usable there; `lasting`: it is so, as opposed to could not be read. */
  | { readonly ok: false; readonly verdict: Verdict; readonly lasting: boolean };

/** Reads the key by name: Secrets are never watched. Never throws, and never repeats a value. */
export async function readEnvironmentKey(
  kube: KubeClient,
  namespace: string,
  ref: { readonly name: string; readonly key: string },
): Promise<KeyReading> {
  try {
    const { data, metadata } = await kube.get(SECRETS, { namespace, name: ref.name });
    const value = data?.[ref.key];
    if (value === undefined) {
      // The Secret's other keys stay unnamed: a user who can edit an Environment may have no right to read Secrets.
      return lasting(
        "KeyMissing",
        `Secret ${ref.name} has no key ${ref.key}: add the key, or fix spec.api.keySecretRef.key`,
      );
    }
    // A line break at the end is what `kubectl create secret --from-file` leaves there.
    const key = Buffer.from(value, "base64").toString("utf8").trim();
    if (key === "") return lasting("KeyEmpty", `${placeOf(ref)} is empty: put the environment key there`);
    if (!HEADER_VALUE.test(key)) {
      return lasting(
        "KeyEmpty",
        `${placeOf(ref)} holds spaces, line breaks or letters that no key has: put the environment key there and nothing else`,
      );
    }
    return { ok: true, key, version: `${metadata.uid}/${metadata.resourceVersion}` };
  } catch (error) {
    if (isNotFound(error)) {
      return lasting(
        "KeySecretMissing",
        `Secret ${ref.name} is not in namespace ${namespace}: create it, or mend spec.api.keySecretRef.name`,
      );
    }
    const mend = isForbidden(error)
      ? `give the operator permission to get Secrets in namespace ${namespace}`
      : "it is tried again";
    const message = `Secret ${ref.name} could not be read: ${mend} (${errorText(error)})`;
    return { ok: false, lasting: false, verdict: { reason: "KeySecretUnreadable", message } };
  }
}

/** Where a key is, in words. */
function placeOf(ref: { readonly name: string; readonly key: string }): string {
  return `key ${ref.key} of Secret ${ref.name}`;
}

function lasting(reason: "KeyMissing" | "KeyEmpty" | "KeySecretMissing", message: string): KeyReading {
  return { ok: false, lasting: true, verdict: { reason, message } };
}
