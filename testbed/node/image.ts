import type { Container } from "../../src/kube/objects.ts";

export type PullFaultReason = "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName";

/** Why an image can't be pulled, with the messages of the kubelet and containerd. */
export interface PullFault {
  readonly reason: PullFaultReason;
  readonly message: string;
}

/**
 * Returns the fault that an image name implies, if any. A registry below `.invalid` (RFC 2606) or on port 1 of loopback
 * can never answer, and a repository with capitals can't be parsed. All other images are assumed to exist.
 */
export function faultOfName(container: Container): PullFault | undefined {
  const image = container.image ?? "";
  const { registry, repository } = splitImage(image);
  if (/[A-Z]/.test(repository)) return pullFault("InvalidImageName", image);
  if (!/\.invalid(:\d+)?$|^127\.0\.0\.1:1$/.test(registry)) return undefined;
  return pullFault(container.imagePullPolicy === "Never" ? "ErrImageNeverPull" : "ErrImagePull", image);
}

/** Returns the fault with the kubelet's message, unless another is given. */
export function pullFault(reason: PullFaultReason, image: string, message?: string): PullFault {
  return { reason, message: message ?? TEXTS[reason](image) };
}

/** The kubelet's message while it waits before the next pull. */
export function backOffMessage(image: string, fault: PullFault): string {
  return `Back-off pulling image "${image}": ${fault.reason}: ${fault.message}`;
}

const TEXTS: Record<PullFaultReason, (image: string) => string> = {
  ErrImageNeverPull: (image) => `Container image "${image}" is not present with pull policy of Never`,
  InvalidImageName: (image) =>
    `Failed to apply default image tag "${image}": couldn't parse image name "${image}": invalid reference format: ` +
    `repository name (${splitImage(image).repository}) must be lowercase`,
  ErrImagePull(image) {
    const { registry, repository, tag } = splitImage(image);
    const why = /^[\d.]+(:\d+)?$/.test(registry)
      ? `dial tcp ${registry.includes(":") ? registry : `${registry}:443`}: connect: connection refused`
      : `dial tcp: lookup ${registry.replace(/:\d+$/, "")}: no such host`;
    return (
      `failed to pull and unpack image "${image}": failed to resolve image: failed to do request: ` +
      `Head "https://${registry}/v2/${repository}/manifests/${tag}": ${why}`
    );
  },
};

function splitImage(image: string): { registry: string; repository: string; tag: string } {
  const slash = image.indexOf("/");
  const head = slash < 0 ? "" : image.slice(0, slash);
  const isRegistry = /[.:]/.test(head) || head === "localhost";
  const rest = isRegistry ? image.slice(slash + 1) : image;
  const colon = rest.lastIndexOf(":");
  return {
    registry: isRegistry ? head : "docker.io",
    repository: colon < 0 ? rest : rest.slice(0, colon),
    tag: colon < 0 ? "latest" : rest.slice(colon + 1),
  };
}
