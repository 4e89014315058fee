/** Words of conditions that need nobody's answer: `berth template` says the same before there is an Environment. */

/** Of `InvalidSpec`. @param problems each with the field's path and the mend */
export function invalidSpecMessage(problems: readonly string[]): string {
  return problems.join("; ");
}

/** Of `OriginNotAllowed`. */
export function originNotAllowedMessage(baseUrl: string): string {
  return `the operator may not send keys to ${baseUrl}: mend spec.api.baseUrl, or start the operator with ${baseUrl} in --allowed-api-origins`;
}
