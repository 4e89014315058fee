import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isInnerAddress, isInnerHost } from "../../src/work/inner-addresses.ts";

/** Every network that is no public one, by an address of it; the first and the last where neighbours are public. */
const INNER = [
  ...["0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255"],
  ...["127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.0"],
  ...["172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.0", "198.19.255.255"],
  ...["198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"],
  ...["::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1"],
  ...["100::1", "2001::1", "2001:0:a00:1::", "2001:db8::1", "2002:a00:1::1", "2002:101:101::1", "3fff::1", "5f00::1"],
  ...["::ffff:10.0.0.1", "::ffff:a00:1", "::FFFF:127.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::ffff:169.254.169.254"],
  ...["::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::101:101"],
  ...["", "no address", "10.0.0", "1.1.1.1 ", "::ffff:1.1.1"],
];

const PUBLIC = [
  ...["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"],
  ...[
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
  ],
  ...["192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "160.79.104.10", "160.79.105.255"],
  ...["2607:6bc0::10", "2606:4700:4700::1111", "2a00::1", "2001:4860:4860::8888"],
  ...["::ffff:1.1.1.1", "::ffff:101:101", "64:ff9b::1.1.1.1", "64:ff9b::a04f:680a"],
];

describe("addresses", () => {
  test.each(INNER)("%s is an inner one", (address) => {
    expect(isInnerAddress(address)).toBe(true);
  });

  test.each(PUBLIC)("%s is a public one", (address) => {
    expect(isInnerAddress(address)).toBe(false);
  });

  test("an IPv4 address means the same in every form that stands for it", () => {
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
  /** Spellings that a URL may have of what is inside. */
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
  ])("%s leads inside", (url) => {
    expect(isInnerHost(new URL(url).hostname)).toBe(true);
  });

  test.each([
    ...["https://api.anthropic.com", "https://API.Anthropic.com.", "https://1.1.1.1", "https://[2607:6bc0::10]"],
    ...["https://10.0.0.1@public.example", "https://localhost.example", "https://svc.example", "https://local.example"],
    ...["https://xn--bcher-kva.example", "https://10.0.0.1.nip.example", "https://notlocal.example"],
  ])("%s says nothing of it", (url) => {
    expect(isInnerHost(new URL(url).hostname)).toBe(false);
  });
});
