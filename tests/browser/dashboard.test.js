// The dashboard in a browser, before a real server: the main job of a person at it, and every page in every look.
//
// MUSTER names the program. A device enrolls with openssl's request and Node's own TLS, so that what the pages show
// was done by a stranger.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import tls from "node:tls";
import { after, before, test } from "node:test";
import { LOOKS, fitsItsWidth, openBrowser, textIsLegible, visit } from "./harness.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const HOST = "api.example.test";
/** The certificate of a CA whose key is elsewhere. */
const ELSEWHERE = path.join(import.meta.dirname, "../../server/admin/src/tests/data/elsewhere/ca.pem");
/** What the tour of all pages shows; the story has its own. */
const [SHOWN_DEVICE, SHOWN_HOST] = ["meter-0", "mqtt.example.test"];

let browser;
let folder;
let origin;
let ready;
let server;
let token;
let ca;
let hook;
let elsewhere;

const muster = (...args) => execFileSync(process.env.MUSTER, args, { cwd: folder, encoding: "utf8" });

/** Starts the server; its first line says where it listens. */
function serve() {
  const addresses = ["admin", "est", "https", "mqtt"].flatMap((name) => [`--listen-${name}`, "127.0.0.1:0"]);
  const child = spawn(process.env.MUSTER, ["serve", "d", ...addresses], { cwd: folder, stdio: ["ignore", "pipe", "ignore"] });
  const line = new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return [child, line];
}

before(async () => {
  assert.ok(process.env.MUSTER, "MUSTER names the program");
  folder = mkdtempSync(path.join(tmpdir(), "muster-dashboard-"));
  const made = JSON.parse(muster("init", "d", "--zone", "example.test", "--json"));
  token = made.admin_token;
  const [child, line] = serve();
  server = child;
  ready = JSON.parse(await line);
  ca = readFileSync(path.join(folder, "d/ca.pem"));
  origin = http.createServer((_, answer) => answer.end("hello")).listen(0, "127.0.0.1");
  await new Promise((resolve) => origin.once("listening", resolve));
  muster("-C", "d", "host", "set", SHOWN_HOST, "--mode", "request", "--protocol", "mqtt");
  await enroll(SHOWN_DEVICE, muster("-C", "d", "token", "new", "--device", SHOWN_DEVICE).trim());
  hook = JSON.parse(muster("-C", "d", "webhook", "add", "https://hooks.example.test/muster", "--event", "ca-added", "--json")).id;
  elsewhere = JSON.parse(muster("-C", "d", "ca", "import", ELSEWHERE, "--json")).id;
  muster("-C", "d", "cert", "revoke", "--ca", elsewhere, "--serial", "10:02", "--reason", "superseded");
  muster("-C", "d", "cert", "revoke", "--ca", elsewhere, "--sha256", "ab".repeat(32));
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  origin?.close();
  if (server?.exitCode === null) {
    server.removeAllListeners("exit");
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    await ended;
  }
  if (folder) rmSync(folder, { recursive: true });
});

/** One request; resolves to its status and text. */
function ask(url, options, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(url, { ca, agent: false, ...options }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ status: response.statusCode, text: Buffer.concat(parts).toString() }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** Enrolls over EST; returns the key and certificate. */
async function enroll(device, secret) {
  const [key, csr] = [path.join(folder, `${device}.key`), path.join(folder, `${device}.csr`)];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", "-new", ...curve, "-keyout", key, "-out", csr, "-outform", "DER", "-subj", `/CN=${device}`], { stdio: "ignore" });
  const url = new URL("/.well-known/est/simpleenroll", ready.est);
  url.hostname = "localhost";
  const headers = { "Content-Type": "application/pkcs10" };
  const options = { method: "POST", headers, auth: `${device}:${secret}` };
  const answer = await ask(url, options, readFileSync(csr).toString("base64"));
  assert.equal(answer.status, 200, answer.text);
  const input = `-----BEGIN PKCS7-----\n${answer.text.trim()}\n-----END PKCS7-----\n`;
  const cert = execFileSync("openssl", ["pkcs7", "-print_certs"], { input, encoding: "utf8" });
  return { key: readFileSync(key), cert };
}

/** Asks at the door of the hostname. */
function knock(identity = {}) {
  const port = ready.edge_https.split(":").at(-1);
  return ask(`https://127.0.0.1:${port}/`, { servername: HOST, headers: { Host: HOST }, ...identity });
}

async function logIn(page) {
  await page.goto(`${ready.admin}/`);
  await page.getByLabel("Admin token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

test("a person makes a token, sees the device enroll, opens a door for it, and shuts it", async () => {
  await visit(browser, `${ready.admin}/`, LOOKS[0], "dashboard-story", async (page) => {
    page.on("dialog", (dialog) => dialog.accept());
    await logIn(page);

    await page.getByRole("link", { name: "Enrollment tokens" }).click();
    await page.locator("#new").getByLabel("Device").fill("meter-1");
    await page.getByRole("button", { name: "Create a token" }).click();
    const secret = await page.locator("pre").first().innerText();
    assert.ok(secret.startsWith("mst_"), secret);
    assert.ok((await page.locator(".qr svg").boundingBox()).width > 200, "a code to scan");

    await page.getByRole("link", { name: "Overview" }).click();
    const active = page.locator(".tile", { hasText: "Active devices" }).locator("b");
    assert.equal(await active.innerText(), "1");
    await page.getByText("Live", { exact: true }).waitFor();
    await active.locator("xpath=..").focus();
    const identity = await enroll("meter-1", secret.trim());
    await page.waitForFunction(() => document.querySelector(".tile b").textContent === "2");
    await page.locator("[data-live=events]").getByText("certificate-issued").first().waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("href")), "/devices?status=active");

    await page.getByRole("link", { name: "Hostnames" }).click();
    await page.getByLabel("Hostname").fill(HOST);
    await page.getByRole("button", { name: "Require certificates" }).click();
    await page.getByLabel("Origins").fill(`http://127.0.0.1:${origin.address().port}`);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved; the change is in force.").waitFor();
    const silent = page.getByLabel("Origin timeout in seconds");
    assert.equal(await silent.inputValue(), "60");
    await silent.fill("86401");
    await page.getByRole("button", { name: "Save" }).click();
    assert.ok(await silent.evaluate((field) => field.validity.rangeOverflow), "the browser keeps what is out of range");
    await silent.fill("5");
    await page.getByRole("button", { name: "Save" }).click();
    await page.waitForFunction(() => document.querySelector("[name=origin_timeout_s]").defaultValue === "5");
    assert.equal(JSON.parse(muster("-C", "d", "host", "list", "--json")).find(({ host }) => host === HOST).origin_timeout_s, 5);
    assert.deepEqual(await knock(identity), { status: 200, text: "hello" });
    await assert.rejects(knock(), "nobody gets in without a certificate");

    await page.getByLabel("Device, serial or certificate id").fill("meter-1");
    await page.getByRole("button", { name: "Test" }).click();
    await page.locator("#verdict").getByText("gets in").waitFor();

    await page.getByRole("link", { name: "Certificates" }).click();
    await page.locator("tbody a").first().click();
    await page.getByRole("button", { name: "Revoke" }).click();
    await page.getByText("Revoked: the edge").waitFor();
    await assert.rejects(knock(identity), "a revoked certificate opens nothing");

    await page.goto(`${ready.admin}/hosts/${HOST}/test?q=meter-1`);
    await page.getByText("certificate_revoked").waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("heading", { name: "Muster" }).waitFor();
    await page.goto(`${ready.admin}/devices`);
    assert.equal(new URL(page.url()).pathname, "/login");
  });
});

test("a person writes a rule and guards a place, tries both, and the edge goes by them", async () => {
  const identity = await enroll("meter-3", muster("-C", "d", "token", "new", "--device", "meter-3").trim());
  assert.equal((await knock(identity)).status, 200);
  await visit(browser, `${ready.admin}/`, LOOKS[0], "dashboard-access-story", async (page) => {
    page.on("dialog", (dialog) => dialog.accept());
    await logIn(page);
    await page.getByRole("link", { name: "Access rules" }).click();
    await page.getByText("Add a rule to example.test").click();
    await page.getByLabel("Expression, such as").fill('cf.tls_client_auth.cert_subject_dn eq "CN=meter-3" or mqtt.topic contains "secret"');
    await page.getByRole("button", { name: "Add rule" }).click();
    await page.getByText("The rule is in force.").waitFor();
    assert.equal((await knock(identity)).status, 403);

    const verdict = page.locator("#verdict");
    await page.getByLabel("Hostname").fill(HOST);
    await page.getByLabel("Device, serial or certificate id").fill("meter-3");
    await page.getByRole("button", { name: "Test", exact: true }).click();
    await verdict.getByText("Rule 1 of the zone blocks it").waitFor();
    await page.getByLabel("Hostname").fill(SHOWN_HOST);
    await page.getByLabel("Device, serial or certificate id").fill(SHOWN_DEVICE);
    await page.getByLabel("Protocol").selectOption("mqtt");
    await page.getByLabel("Topic or filter").fill(`devices/${SHOWN_DEVICE}/secret`);
    await page.getByRole("button", { name: "Test", exact: true }).click();
    await verdict.getByText(`It is identified as ${SHOWN_DEVICE}.`).waitFor();
    await verdict.getByText("refused").waitFor();
    await page.getByLabel("Topic or filter").fill(`devices/${SHOWN_DEVICE}/state`);
    await page.getByRole("button", { name: "Test", exact: true }).click();
    await verdict.getByText("gets in").waitFor();

    await page.getByRole("button", { name: "Turn off" }).click();
    await page.getByText("The change is in force.").waitFor();
    assert.equal((await knock(identity)).status, 200);

    await page.getByText("Create a policy").click();
    const policy = page.locator("form[action='/access/policies']");
    await policy.getByLabel("Name", { exact: true }).fill("nobody here");
    await policy.getByLabel("Selector").selectOption("common_name");
    await policy.getByLabel("Common names").fill("someone-else");
    await policy.getByRole("button", { name: "Create policy" }).click();
    await page.getByText("Add an application").click();
    const app = page.locator("form[action='/access/apps']");
    await app.getByLabel("Domain").fill(HOST);
    await app.getByLabel("nobody here").check();
    await app.getByRole("button", { name: "Add application" }).click();
    await page.getByText("The application is in force.").waitFor();
    assert.equal((await knock(identity)).status, 403);
  });
});

test("a wrong token is told, and the keyboard leads past the links", async () => {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(`${ready.admin}/`);
    await page.getByLabel("Admin token").fill("msa_wrong");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("unknown, revoked or expired").waitFor();
    await logIn(page);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    const inside = await page.evaluate(() => document.querySelector("main").contains(document.activeElement));
    assert.ok(inside, "the first link skips to the content");
  } finally {
    await context.close();
  }
});

/** Types the token where the page put the cursor. */
async function logInByKeyboard(page) {
  // A browser does so when it first draws the page, which is after it has loaded; what is typed before is lost.
  await page.locator("input[name=token]:focus").waitFor();
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

/** Goes through a page by the tabulator, from its top; what is focused, in order. */
async function walk(page) {
  await page.evaluate(() => {
    document.activeElement?.blur();
    scrollTo(0, 0);
    const focusable = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
    const shown = (element) => element.checkVisibility({ visibilityProperty: true });
    // Asked at each step: live parts are renewed meanwhile.
    globalThis.order = () => [...document.querySelectorAll(focusable)].filter(shown);
  });
  const length = await page.evaluate(() => order().length);
  const stops = [];
  for (let step = 0; step < length; step += 1) {
    await page.keyboard.press("Tab");
    stops.push(
      await page.evaluate(() => {
        const at = document.activeElement;
        const [style, box] = [getComputedStyle(at), at.getBoundingClientRect()];
        const seen = box.width > 0 && box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
        return {
          index: order().indexOf(at),
          what: `${at.tagName} ${at.getAttribute("href") ?? at.name ?? ""} ${at.textContent.trim().slice(0, 30)}`,
          seen,
          marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        };
      }),
    );
  }
  return stops;
}

for (const appearance of LOOKS.filter((look) => look.colorScheme === "light")) {
  test(`every page is walked by the keyboard alone in ${appearance.name}`, async () => {
    const { colorScheme, viewport } = appearance;
    const context = await browser.newContext({ colorScheme, viewport });
    try {
      const page = await context.newPage();
      await page.goto(`${ready.admin}/`);
      await logInByKeyboard(page);
      for (const at of pages()) {
        await page.goto(ready.admin + at);
        const stops = await walk(page);
        assert.deepEqual(stops[0].what, "A #main Skip to the content", at);
        assert.deepEqual(stops.map((stop) => stop.index), stops.map((_, index) => index), `${at}: ${stops.map((stop) => stop.what).join(" > ")}`);
        assert.deepEqual(stops.filter((stop) => !stop.seen || !stop.marked), [], at);
      }
    } finally {
      await context.close();
    }
  });
}

test("a form, a choice, a menu that unfolds and a question are answered by the keyboard alone", async () => {
  await visit(browser, `${ready.admin}/`, LOOKS[0], "dashboard-keyboard", async (page) => {
    const answers = [];
    page.on("dialog", (dialog) => (answers.shift() === "yes" ? dialog.accept() : dialog.dismiss()));
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    /** Goes on to what has this text. */
    const to = async (text) => {
      for (let step = 0; step < 200; step += 1) {
        await press("Tab");
        const here = await page.evaluate(() => {
          const at = document.activeElement;
          return at.closest("label")?.innerText ?? at.labels?.[0]?.innerText ?? at.innerText ?? "";
        });
        if (here.trim().startsWith(text)) return;
      }
      assert.fail(`the keyboard does not reach ${text}`);
    };
    await logInByKeyboard(page);
    await to("Devices");
    await press("Enter");
    await page.getByRole("heading", { name: "Devices" }).waitFor();
    await to("Add devices");
    await press("Enter");
    await to("Device ids, one per line");
    await page.keyboard.type("gate-1");
    await to("Import");
    await press("Enter");
    await page.getByText("Added 1 devices.").waitFor();
    // The answer to the choice comes when the keyboard has gone on into the list that it replaces.
    let answer;
    const until = new Promise((resolve) => (answer = resolve));
    await page.route("**/devices?*", async (route) => {
      await until;
      await route.continue();
    });
    await to("Status");
    await press("ArrowDown");
    await to("gate-1");
    const answered = page.evaluate(
      () => new Promise((done) => document.body.addEventListener("htmx:afterSettle", () => done(), { once: true })),
    );
    answer();
    await answered;
    assert.equal(await page.evaluate(() => document.activeElement.innerText), "gate-1");
    await press("Enter");
    await page.getByRole("heading", { name: "gate-1" }).waitFor();
    await to("Suspend");
    await press("Enter");
    // Esc at the question: nothing happens, and one is where one was.
    assert.equal(await page.evaluate(() => document.activeElement.innerText), "Suspend");
    answers.push("yes");
    await press("Enter");
    await page.getByText("The device is suspended now.").waitFor();
    assert.equal(new URL(page.url()).pathname, "/devices/gate-1");
    await page.getByText("Live", { exact: true }).waitFor();
    muster("-C", "d", "device", "retire", "gate-1");
    await page.locator("[data-live=state]").getByText("retired").waitFor();
  });
});

test("pages follow what happens, also when there are many, and leave with their session", async () => {
  const context = await browser.newContext();
  const complaints = [];
  try {
    const pages = [];
    for (const at of ["/", `/devices/${SHOWN_DEVICE}`, "/", "/"]) {
      const page = await context.newPage();
      page.on("console", (message) => complaints.push(message.text()));
      page.on("pageerror", (error) => complaints.push(error.message));
      if (pages.length === 0) await logIn(page);
      else await page.goto(ready.admin + at);
      await page.locator("[data-live-stream]").getByText(pages.length < 3 ? "Live" : "Renewed every 5 seconds").waitFor();
      pages.push(page);
    }
    const [first, device, , last] = pages;
    muster("-C", "d", "device", "suspend", SHOWN_DEVICE);
    for (const page of [first, last]) {
      await page.waitForFunction(() => document.querySelector("a[href='/devices?status=suspended'] b").textContent === "1");
    }
    await device.locator("[data-live=state]").getByText("suspended").waitFor();
    muster("-C", "d", "device", "resume", SHOWN_DEVICE);
    await device.locator("[data-live=state]").getByText("active").waitFor();

    await first.goto(`${ready.admin}/audit`);
    await first.goBack();
    await first.getByText("Live", { exact: true }).waitFor();
    await device.getByRole("button", { name: "Log out" }).click();
    await Promise.all([first, last].map((page) => page.waitForURL("**/login")));
    assert.deepEqual(complaints, []);
  } finally {
    await context.close();
  }
});

test("a device's connections are shown while they are open, and ended there", async () => {
  const identity = await enroll("meter-5", muster("-C", "d", "token", "new", "--device", "meter-5").trim());
  const host = "shop.example.test";
  muster("-C", "d", "host", "set", host, "--origin", `http://127.0.0.1:${origin.address().port}`);
  const open = () =>
    new Promise((resolve, reject) => {
      const port = ready.edge_https.split(":").at(-1);
      const socket = tls.connect({ port, host: "127.0.0.1", servername: host, ca, ...identity }, () => resolve(socket));
      socket.once("error", reject);
    });
  await visit(browser, `${ready.admin}/`, LOOKS[0], "dashboard-connections", async (page) => {
    page.on("dialog", (dialog) => dialog.accept());
    await logIn(page);
    await page.goto(`${ready.admin}/devices/meter-5`);
    await page.getByText("Live", { exact: true }).waitFor();
    const shown = page.locator("[data-live=connections]");
    await shown.getByText("None now.").waitFor();
    const sockets = [await open(), await open()];
    const ended = sockets.map((socket) => new Promise((resolve) => socket.once("close", resolve)));
    await page.waitForFunction(() => document.querySelectorAll("[data-live=connections] tbody tr").length === 2);
    await shown.getByRole("link", { name: host }).first().waitFor();
    await shown.getByRole("button", { name: "Close", exact: true }).first().click();
    await page.getByText("Closed connections: 1.").waitFor();
    await ended[1];
    await page.waitForFunction(() => document.querySelectorAll("[data-live=connections] tbody tr").length === 1);
    sockets.push(await open());
    ended.push(new Promise((resolve) => sockets[2].once("close", resolve)));
    await shown.getByRole("button", { name: "Close all" }).click();
    await page.getByText("Closed connections: 2.").waitFor();
    await Promise.all(ended);
    await shown.getByText("None now.").waitFor();
    await page.locator("[data-live=timeline]").getByText("connections-closed").first().waitFor();
  });
});

test("devices are found while one types", async () => {
  await visit(browser, `${ready.admin}/`, LOOKS[0], "dashboard-search", async (page) => {
    muster("-C", "d", "token", "new", "--device", "pump-7");
    await logIn(page);
    await page.goto(`${ready.admin}/devices`);
    await page.locator("details summary").click();
    await page.getByLabel("Device ids, one per line").fill("pump-7\nvalve-3");
    await page.getByRole("button", { name: "Import" }).click();
    await page.getByText("Added 2 devices.").waitFor();
    await page.getByLabel("Id starts with").pressSequentially("valve");
    await page.locator("#found tbody tr").first().getByText("valve-3").waitFor();
    await page.waitForFunction(() => document.querySelectorAll("#found tbody tr").length === 1);
  });
});

const pages = () => ["/", "/devices", `/devices/${SHOWN_DEVICE}`, "/certificates", "/cas", `/cas/${elsewhere}`, `/cas/${elsewhere}/revoked`, "/hosts", `/hosts/${SHOWN_HOST}`, "/access", "/tokens", "/approvals", "/audit", "/webhooks", `/webhooks/${hook}`, "/settings"];

/** What axe-core finds that keeps people out. */
async function isAccessible(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
  });
  assert.deepEqual(found, []);
}

for (const appearance of LOOKS) {
  test(`every page in ${appearance.name}`, async () => {
    const context = await browser.newContext();
    const entry = await context.newPage();
    await logIn(entry);
    const cookies = await context.cookies();
    await context.close();
    for (const at of pages()) {
      const name = `dashboard${at.replaceAll(/[/.]/g, "-")}`;
      await visit(browser, ready.admin + at, appearance, name, async (page) => {
        await page.context().addCookies(cookies);
        await page.goto(ready.admin + at);
        assert.equal(new URL(page.url()).pathname, at);
        const here = await page.locator("nav [aria-current]").boundingBox();
        assert.ok(here.x >= 0 && here.x + here.width <= appearance.viewport.width, "where one is among the links is seen");
        await fitsItsWidth(page);
        await textIsLegible(page);
        await isAccessible(page);
      });
    }
  });
}
