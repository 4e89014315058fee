import { errorText } from "../core/errors.ts";

/** What the API server says before it comes to the point; `Pod "x" is invalid: ` and the like name no field. */
const PREAMBLES = [
  /^create \w+ \S+: /,
  /^\w+ is forbidden: /,
  /^\w+ "[^"]*" is (invalid|forbidden): /,
  /^Pod in version "v1" cannot be handled as a Pod: /,
  /^strict decoding error: /,
];

/**
 * Why the API server refused to create a Pod or its Secret, without their name: it is another one at each try, and a
 * message that differs at each try is a status that is written at each try.
 */
export function refusalWords(error: unknown, podName: string): string {
  const words = PREAMBLES.reduce((text, preamble) => text.replace(preamble, ""), errorText(error));
  return words.replaceAll(`"${podName}" `, "").replaceAll(`/${podName}`, "").replaceAll(podName, "it");
}
