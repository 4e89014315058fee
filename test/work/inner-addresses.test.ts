import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isInnerAddress, isInnerHost } from "../../src/work/inner-addresses.ts";
import { INNER, PUBLIC } from "../support/addresses.ts";

describe("addresses", () => {
  test.each(INNER)("%s is inner", (address) => {
    expect(isInnerAddress(address)).toBe(true);
  });

  test.each(PUBLIC)("%s is public", (address) => {
    expect(isInnerAddress(address)).toBe(false);
  });

  test("an IPv4 address is judged the same in every IPv6 form that embeds it", () => {
    fc.assert(
      fc.property(fc.ipV4(), (address) => {
        const [a = 0, b = 0, c = 0, d = 0] = address.split(".").map(Number);
        const hex = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
        const inner = isInnerAddress(address);
        for (const form of [`::ffff:${address}`, `::ffff:${hex}`, `64:ff9b::${hex}`, `0:0:0:0:0:FFFF:${hex}`]) {
          expect(isInnerAddress(form), form).toBe(inner);
        }
      }),
    );
  });
});

describe("hosts of URLs", () => {
  /** URLs that lead to an inner address. */
  test.each([
    ...["https://10.0.0.1", "https://167772161", "https://0xa000001", "https://012.0.0.1", "https://10.1", "https://0"],
    ...["https://0x7f.1", "https://127.1:8443", "https://169.254.169.254", "https://2852039166", "https://[::1]"],
    ...["https://[::ffff:10.0.0.1]", "https://[::ffff:a00:1]", "https://[fd00:ec2::254]", "https://[64:ff9b::a00:1]"],
    ...[
      "https://localhost",
      "https://LOCALHOST:6443",
      "https://localhost.",
      "https://a.localhost",
      "https://127.0.0.1.",
    ],
    ...["https://kubernetes", "https://kubernetes.default.svc", "https://KUBERNETES.default.SVC."],
    ...["https://kubernetes.default.svc.cluster.local", "https://printer.local", "https://metadata.google.internal"],
    ...["https://router.home.arpa", "https://public.example@10.0.0.1", "https://%31%30.0.0.1", "https://１０.0.0.1"],
    ...["https://ⓛocalhost", "https://10。0。0。1"],
  ])("%s is inner", (url) => {
    expect(isInnerHost(new URL(url).hostname)).toBe(true);
  });

  test.each([
    ...["https://api.anthropic.com", "https://API.Anthropic.com.", "https://1.1.1.1", "https://[2607:6bc0::10]"],
    ...["https://10.0.0.1@public.example", "https://localhost.example", "https://svc.example", "https://local.example"],
    ...["https://xn--bcher-kva.example", "https://10.0.0.1.nip.example", "https://notlocal.example"],
  ])("%s is not known to be inner", (url) => {
    expect(isInnerHost(new URL(url).hostname)).toBe(false);
  });
});
