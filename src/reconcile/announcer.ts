import { eventType } from "../api/condition-reasons.ts";
import { API_VERSION, KIND } from "../api/names.ts";
import type { EventSink, EventSubject } from "../kube/events.ts";
import type { Announce } from "../protocol/context.ts";
import type { Onlooker } from "./onlooker.ts";

/** What is said of an Environment, or of its Pods, becomes Events; warnings are told to an onlooker, too. */
export function announcer(
  about: Pick<EventSubject, "metadata">,
  { events, onlooker }: { readonly events: EventSink; readonly onlooker?: Onlooker },
): Announce {
  const key = `${about.metadata.namespace}/${about.metadata.name}`;
  const subject = { apiVersion: API_VERSION, kind: KIND, metadata: about.metadata };
  return (reason, message, pod) => {
    const type = eventType(reason);
    if (type === "Warning") onlooker?.warned(key, reason, message);
    // Sessions that come and go as they should are told of their Pods alone: told twice, they would be most of what this
    // process writes, and drown what is wrong with the Environment.
    if (!pod || type === "Warning") events.event(subject, type, reason, message);
    if (pod) events.event({ apiVersion: "v1", kind: "Pod", metadata: pod.metadata }, type, reason, message);
  };
}
