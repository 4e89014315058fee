import { errorText } from "../core/errors.ts";
import { isForbidden, isNotFound } from "../kube/errors.ts";
import type { CheckResult, Results } from "./checks.ts";

/** The result of a read from the cluster. */
export type Look<T> =
  | { readonly is: "seen"; readonly value: T }
  | { readonly is: "absent" }
  /** The user of the command may not read it. */
  | { readonly is: "forbidden" }
  | { readonly is: "failed"; readonly message: string };

/** Reads and never throws. */
export async function look<T>(read: () => Promise<T>): Promise<Look<T>> {
  try {
    return { is: "seen", value: await read() };
  } catch (error) {
    if (isNotFound(error)) return { is: "absent" };
    if (isForbidden(error)) return { is: "forbidden" };
    return { is: "failed", message: errorText(error) };
  }
}

const TRY_AGAIN = "Run the command again. If this stays, see the API server's log.";

/**
 * The result for a failed read.
 * @param needs the permission that the read needs, such as `get secrets in agents`
 */
export function unseen(
  results: Pick<Results, "skip" | "fail">,
  found: Exclude<Look<unknown>, { readonly is: "seen" } | { readonly is: "absent" }>,
  needs: string,
): CheckResult {
  return found.is === "forbidden" ? results.skip(needs) : results.fail(found.message, TRY_AGAIN);
}
