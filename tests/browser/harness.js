// A real browser, Debian's Chromium, at pages of this project: in light and dark, on a desk and on a phone.
//
// A page is looked at as a user would, and whatever the browser complains of is kept: console, errors of scripts,
// requests that failed or that go anywhere else than the page itself. The checks here hold for any page; what a page
// has to show is its own test's business.
//
// MUSTER_BROWSER_OUT names a folder for the screenshots.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { chromium } from "playwright-core";

const OUT = process.env.MUSTER_BROWSER_OUT ?? "/tmp/muster-browser";
/** WCAG 2.2, 1.4.3: text against what is behind it. */
const CONTRAST_MIN = 4.5;

const DESK = { width: 1280, height: 900 };
/** The narrowest phones that are sold. */
const PHONE = { width: 360, height: 780 };

/** How pages are looked at. */
export const LOOKS = [
  { name: "light", colorScheme: "light", viewport: DESK },
  { name: "dark", colorScheme: "dark", viewport: DESK },
  { name: "light-phone", colorScheme: "light", viewport: PHONE },
  { name: "dark-phone", colorScheme: "dark", viewport: PHONE },
];

/** Starts the browser; the caller closes it. */
export function openBrowser() {
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** Opens a page, hands it to `look`, takes a screenshot, and fails when the browser had anything to complain of. */
export async function visit(browser, url, appearance, name, look) {
  const { colorScheme, viewport } = appearance;
  const context = await browser.newContext({ colorScheme, viewport, deviceScaleFactor: 1 });
  const complaints = [];
  try {
    const page = await context.newPage();
    page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(`script: ${error.message}`));
    page.on("requestfailed", (request) => {
      // Who leaves a page that refreshes itself breaks a request off.
      if (request.failure()?.errorText !== "net::ERR_ABORTED") complaints.push(`failed: ${request.url()}`);
    });
    page.on("request", (request) => {
      const there = new URL(request.url());
      const own = new URL(url);
      const inside = there.protocol === "data:" || (there.origin === own.origin && (own.protocol !== "file:" || there.href === own.href));
      if (!inside) complaints.push(`foreign request: ${request.url()}`);
    });
    await page.goto(url);
    await look(page);
    await mkdir(OUT, { recursive: true });
    await page.screenshot({ path: path.join(OUT, `${name}-${appearance.name}.png`), fullPage: true });
    assert.deepEqual(complaints, [], `${name} in ${appearance.name}`);
  } finally {
    await context.close();
  }
}

/** Nothing sticks out to the side: the page itself never scrolls that way. */
export async function fitsItsWidth(page) {
  const [content, room] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  assert.ok(content <= room, `the page is ${content} wide in a window of ${room}`);
}

/** All text that is shown stands out from what is behind it. */
export async function textIsLegible(page) {
  const faint = await page.evaluate((least) => {
    const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
    const luminance = (colour) => {
      const [r, g, b] = channels(colour).map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        const [, , , alpha = 1] = channels(colour);
        if (alpha === 1 && colour !== "transparent") return colour;
      }
      return "rgb(255, 255, 255)";
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const text = walker.currentNode.textContent.trim();
      if (!text || element.getClientRects().length === 0 || element.tagName === "title") continue;
      const style = getComputedStyle(element);
      const inSvg = element instanceof SVGElement;
      const front = luminance(inSvg ? style.fill : style.color);
      const back = luminance(behind(element));
      const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
      if (contrast < least) found.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
    return found;
  }, CONTRAST_MIN);
  assert.deepEqual(faint, []);
}

/** No two of these elements cover each other. */
export async function nothingOverlaps(page, selector) {
  const covered = await page.evaluate((selector) => {
    const shown = [...document.querySelectorAll(selector)].map((element) => [element.textContent, element.getBoundingClientRect()]);
    const found = [];
    shown.forEach(([one, a], at) => {
      for (const [other, b] of shown.slice(at + 1)) {
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) found.push(`${one} and ${other}`);
      }
    });
    return found;
  }, selector);
  assert.deepEqual(covered, []);
}
