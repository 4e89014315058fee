import { errorText } from "../core/errors.ts";
import { isForbidden, isNotFound } from "../kube/errors.ts";
import type { CheckResult, Results } from "./checks.ts";

/** What came of a look at the cluster. */
export type Look<T> =
  | { readonly is: "seen"; readonly value: T }
  | { readonly is: "absent" }
  /** Whoever runs the command may not look. */
  | { readonly is: "forbidden" }
  | { readonly is: "failed"; readonly message: string };

/** Looks, and never throws. */
export async function look<T>(read: () => Promise<T>): Promise<Look<T>> {
  try {
    return { is: "seen", value: await read() };
  } catch (error) {
    if (isNotFound(error)) return { is: "absent" };
    if (isForbidden(error)) return { is: "forbidden" };
    return { is: "failed", message: errorText(error) };
  }
}

const TRY_AGAIN = "Run it again; if it stays so, the API server's own log says why.";

/** The result of a look that showed nothing. @param needs the right that it takes, such as `get secrets in agents` */
export function unseen(
  results: Results,
  found: Exclude<Look<unknown>, { readonly is: "seen" } | { readonly is: "absent" }>,
  needs: string,
): CheckResult {
  return found.is === "forbidden" ? results.skip(needs) : results.fail(found.message, TRY_AGAIN);
}
