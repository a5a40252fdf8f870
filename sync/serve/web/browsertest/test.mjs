// The pages in a real browser. Run by TestBrowser (make page), which serves the
// layouts and passes their addresses:
//
//   BASE      "gardenlinux", "hostile" and "large", each a repository
//   FILES     a directory with report.html, hostile.html and diff.html
//   SHOTS     where screenshots go: they are taken, and nothing else; empty: none
//   TIMES     not empty: the times that are promised are wanted too
//   CHROMIUM  the browser
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { BASE, FILES, SHOTS, TIMES, CHROMIUM } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--font-render-hinting=none"];
const browser = await chromium.launch({ executablePath: CHROMIUM, args });
const contexts = [];

// open begins a page in which whatever must not happen is remembered.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  contexts.push(context);
  const page = await context.newPage();
  page.setDefaultTimeout(60_000); // for a machine that has other things to do
  page.bad = [];
  page.on("dialog", (d) => { page.bad.push("dialog " + d.message()); d.dismiss(); });
  page.on("pageerror", (e) => page.bad.push("error " + e.message));
  page.on("console", (m) => { if (m.type() === "error" || /Content.Security/.test(m.text())) page.bad.push("console " + m.text()); });
  page.on("request", (r) => { if (!r.url().startsWith(BASE) && !r.url().startsWith("file://" + FILES)) page.bad.push("request " + r.url()); });
  return page;
}

// sound wants that the browser had nothing to complain of, and got no cookie.
async function sound(page, where) {
  assert.deepEqual(page.bad, [], where);
  assert.deepEqual(await page.context().cookies(), [], where);
}

const to = (page, path) => page.goto(path.startsWith("file:") ? path : BASE + path, { waitUntil: "load" });
const has = async (page, what, text) => assert.ok(text.test(await page.textContent(what)), `${page.url()}: ${text} is not in ${what}`);
const status = (page) => page.textContent("#found");
const gl = "/r/gardenlinux";
const pairs = gl + "/-/diff?a=gardenlinux%3A2150.0.0&b=gardenlinux%3A2150.1.0";

// leads returns where the first of what selector finds leads to.
const leads = async (page, selector) => new URL(await page.locator(selector).first().evaluate((a) => a.href)).pathname;

// kinds returns a page of each kind.
async function kinds() {
  const page = await open();
  await to(page, gl);
  const manifest = await leads(page, "#matrix a.cell");
  const index = await leads(page, "section:has(#h-versions) tbody th a");
  await to(page, manifest);
  const files = await leads(page, "table.layers a:has-text('Files')");
  return ["/", gl, gl + "?q=nothing", manifest, index, files, gl + "/-/diff", pairs, "/r/hostile", "/r/no", `file://${FILES}/report.html`, `file://${FILES}/diff.html`];
}

// unfold opens so many of what is folded.
const unfold = async (page, most) => {
  await page.evaluate((n) => { for (const d of [...document.querySelectorAll("details")].slice(0, n)) d.open = true; }, most);
  await page.locator("details[open] > noscript").first().waitFor({ state: "detached" }); // unpacked
};

async function check(name, fn) {
  if (SHOTS && name !== "screenshots") return;
  const begin = Date.now();
  await fn();
  for (const c of contexts.splice(0)) await c.close();
  console.log(`ok ${name} (${Date.now() - begin} ms)`);
}

try {
  await check("search, filter, open a manifest, follow to its files", async () => {
    const page = await open();
    await to(page, gl);
    await page.fill("#q", "azure"); // narrows down while it is typed
    assert.equal(await page.locator("#matrix tbody tr:visible").count(), 1);
    await page.press("#q", "Enter");
    await page.waitForURL(/q=azure/);
    assert.match(await status(page), /^2 of 23 manifests/);
    await to(page, gl);
    await Promise.all([page.waitForURL(/feature=_tpm2/), page.selectOption("#feature", "_tpm2")]);
    assert.match(await status(page), /^2 of 23 manifests/);
    await Promise.all([page.waitForURL(/arch=arm64/), page.selectOption("#arch", "arm64")]);
    assert.match(await status(page), /^1 of 23 manifests/);
    await page.click("text=Clear");
    await Promise.all([page.waitForURL(/type=image/), page.selectOption("#type", "image")]);
    assert.match(await status(page), /^2 of 23 manifests/);
    await to(page, gl + "?feature=_tpm2");
    await page.click("#matrix tbody tr a.cell");
    await page.waitForURL(/\/-\/m\/sha256:/);
    await has(page, "h1", /^aws-gardener_prod_trustedboot_tpm2-amd64/);
    await page.click("table.layers a:has-text('Files')");
    await page.waitForURL(/\/-\/files\//);
    await has(page, "#files", /etc\/os-release/);
    await page.fill("#q", "kubelet");
    assert.equal(await page.locator("#files tbody tr:visible").count(), 1);
    await sound(page);
  });

  await check("download, and compare the digest", async () => {
    const page = await open();
    await to(page, gl);
    await page.click("#matrix tbody tr a.cell");
    const row = page.locator("table.layers tbody tr", { hasText: "release" });
    const digest = await row.locator("code").getAttribute("title");
    const [download] = await Promise.all([page.waitForEvent("download"), row.locator("text=Download").click()]);
    assert.match(download.suggestedFilename(), /\.release$/);
    const content = readFileSync(await download.path());
    assert.ok(content.length > 0);
    assert.equal("sha256:" + createHash("sha256").update(content).digest("hex"), digest);
    await sound(page);
  });

  await check("copy a command", async () => {
    const page = await open({ permissions: ["clipboard-read", "clipboard-write"] });
    await to(page, gl);
    await page.click("section:has(#h-versions) tbody th a");
    const command = page.locator(".cmd", { hasText: "podman" });
    await command.locator("button").click();
    await command.locator("button", { hasText: "Copied" }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await command.locator("code").textContent());
    await sound(page);
  });

  await check("by keyboard alone", async () => {
    const page = await open();
    await to(page, gl);
    const at = (what) => page.evaluate((w) => document.activeElement.matches(w), what);
    // tab goes on to what is wanted; each stop on the way must be seen.
    const tab = async (what) => {
      for (let i = 0; i < 80; i++) {
        await page.keyboard.press("Tab");
        const stop = await page.evaluate(() => {
          const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
          return { html: e.outerHTML.slice(0, 120), seen: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 && r.bottom > 0 && r.top < innerHeight };
        });
        assert.ok(stop.seen, `the focus cannot be seen on ${stop.html}`);
        if (await at(what)) return;
      }
      assert.fail(`Tab does not reach ${what}`);
    };
    await tab(".skip");
    await page.keyboard.press("Enter");
    assert.ok(await at("main"));
    await page.keyboard.press("/");
    assert.ok(await at("#q"));
    await page.keyboard.type("azure");
    await Promise.all([page.waitForURL(/q=azure/), page.keyboard.press("Enter")]);
    await tab("a.cell");
    await Promise.all([page.waitForURL(/\/-\/m\//), page.keyboard.press("Enter")]);
    await tab("a[href*='/-/files/']");
    await Promise.all([page.waitForURL(/\/-\/files\//), page.keyboard.press("Enter")]);
    await to(page, gl);
    await page.focus("section:has(#h-versions) input[name=a]:checked");
    await page.keyboard.press("ArrowDown");
    await tab("section:has(#h-versions) button[type=submit]");
    await Promise.all([page.waitForURL(/\/-\/diff\?/), page.keyboard.press("Enter")]);
    await sound(page);
  });

  await check("two versions side by side", async () => {
    const page = await open();
    await to(page, gl);
    await page.click("text=Compare A with B");
    await page.waitForURL(/\/-\/diff\?/);
    await has(page, "main", /aws-gardener_prod-amd64/);
    await has(page, ".tiles", /manifests differ/);
    const images = [];
    for (const version of ["2150.0.0", "2150.1.0"]) {
      await to(page, `${gl}?type=image&version=${version}`);
      images.push("gardenlinux@" + (await leads(page, "#matrix a.cell")).split("/").pop());
    }
    await to(page, `${gl}/-/diff?a=${images[0]}&b=${images[1]}`);
    await page.selectOption("#level", "file");
    await page.click("button[type=submit]");
    await page.waitForURL(/level=file/);
    await has(page, "main", /etc\/os-release/);
    await sound(page);
  });

  await check("a report is a file of its own", async () => {
    const page = await open();
    await to(page, `file://${FILES}/report.html`);
    await has(page, "main", /ali-gardener_prod/);
    await page.fill("#q", "aws");
    assert.equal(await page.locator("#matrix tbody tr:visible").count(), 1);
    await page.click("#matrix tbody tr:visible a.cell");
    assert.ok(await page.locator("details.document:has(h3:text('aws-gardener_prod-amd64'))").first().evaluate((d) => d.open));
    await sound(page);
  });

  await check("without JavaScript", async () => {
    const page = await open({ javaScriptEnabled: false });
    await to(page, gl);
    await page.fill("#q", "azure vhd");
    await page.click("form[role=search] button");
    await page.waitForURL(/q=azure/);
    assert.match(await status(page), /^2 of 23 manifests/);
    await page.click("#matrix tbody tr a.cell");
    assert.equal(await page.locator("button.copy:visible").count(), 0);
    await page.click("table.layers a:has-text('Files')");
    await has(page, "#files", /etc\/os-release/);
    await to(page, gl);
    await page.click("text=Compare A with B");
    await has(page, ".tiles", /manifests differ/);
    await to(page, `file://${FILES}/report.html`);
    await has(page, "main", /ali-gardener_prod/);
    await page.click("details.document summary");
    assert.ok(await page.locator("details.document h3").first().isVisible());
    await to(page, "/r/large");
    assert.equal(await page.locator(".matrix tbody tr:visible").count(), 200);
    await page.click("#matrix-more summary");
    assert.equal(await page.locator(".matrix tbody tr:visible").count(), 1000);
    await sound(page);
  });

  await check("hostile layouts run nothing", async () => {
    const page = await open();
    await to(page, "/r/hostile");
    const links = await page.locator("main a").evaluateAll((all) => [...new Set(all.map((a) => a.href))]);
    const manifests = links.filter((l) => /\/-\/m\//.test(l)).slice(0, 5);
    assert.equal(manifests.length, 5);
    const injected = () => page.evaluate(() => document.querySelectorAll("img, iframe, object, embed, main script, main style, [onerror], [onload], [onmouseover], a[href^='javascript:']").length);
    for (const link of manifests) {
      await page.goto(link);
      await unfold(page, 20);
      assert.equal(await injected(), 0, link);
    }
    await page.goto(manifests[0]);
    await page.click("table.layers a:has-text('Files')");
    assert.equal(await injected(), 0);
    await page.goBack();
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("table.layers a:has-text('Download')").first().click()]);
    assert.doesNotMatch(download.suggestedFilename(), /[/\\<>]/);
    for (const file of ["hostile.html", "diff.html"]) {
      await to(page, `file://${FILES}/${file}`);
      await unfold(page, 50);
      assert.equal(await page.evaluate(() => document.querySelectorAll("img, iframe, object, embed, main script, main style").length), 0, file);
    }
    await sound(page);
    // The policy holds even where something got through.
    const other = await open();
    await to(other, "/r/hostile");
    await other.evaluate(() => document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='document.title=1'>"));
    await other.waitForTimeout(200);
    assert.ok(other.bad.some((b) => /Content Security Policy/.test(b)), "the policy did not object");
    assert.notEqual(await other.title(), "1");
  });

  await check("2,000 manifests", async () => {
    const times = [];
    for (let i = 0; i < 3; i++) {
      const page = await open(); // with nothing in its cache
      const cdp = await page.context().newCDPSession(page);
      await cdp.send("Performance.enable", { timeDomain: "threadTicks" });
      await to(page, "/r/large");
      // What the page costs, whatever else the machine does.
      const cpu = (await cdp.send("Performance.getMetrics")).metrics.find((m) => m.name === "TaskDuration").value;
      assert.ok(cpu > 0 && cpu < 1, `the page took ${cpu} s of CPU`);
      times.push(await page.evaluate(() => Math.round(performance.getEntriesByType("navigation")[0].loadEventEnd)));
      assert.equal(await page.locator(".matrix tbody tr:visible").count(), 200);
      await page.fill("#q", "flavor999_"); // it is in what is folded
      assert.equal(await page.locator(".matrix tbody tr:visible").count(), 1);
      await page.fill("#q", "");
      await page.click("#matrix-more summary");
      assert.equal(await page.locator(".matrix tbody tr:visible").count(), 1000);
      await sound(page);
    }
    const page = await open(); // what is folded is there for those who search the page, and for links to it
    await to(page, "/r/large");
    await page.locator("details > noscript").first().waitFor({ state: "detached" });
    assert.equal(await page.locator(".matrix tbody tr").count(), 1000);
    await to(page, `file://${FILES}/report.html`);
    const link = await page.locator("#matrix a.cell").last().getAttribute("href");
    await to(page, `file://${FILES}/report.html${link}`);
    await page.locator(`details[open] ${link}`).waitFor();
    console.log(`   2,000 manifests: ${times.join(", ")} ms until loaded`);
    if (TIMES) assert.ok(Math.max(...times) < 1000, `${times} ms`);
  });

  const all = await kinds();

  await check("dark and light", async () => {
    const colors = [];
    for (const colorScheme of ["light", "dark"]) {
      const page = await open({ colorScheme });
      await to(page, gl);
      const [back, text] = await page.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color].map((c) => c.match(/\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)));
      colors.push(back > text);
    }
    assert.deepEqual(colors, [true, false]);
  });

  // audit wants that axe-core has nothing to say of any page.
  async function audit(options, run, each = async () => {}) {
    const page = await open(options);
    for (const path of all) {
      await to(page, path);
      await unfold(page, 3);
      await each(page, path);
      await page.evaluate(axe); // not a script of the page: its policy does not know it
      const found = await page.evaluate((run) => window.axe.run(document, { resultTypes: ["violations"], ...run }), run);
      assert.ok(found.passes.length > 0, `${path}: nothing was looked at`);
      const list = found.violations.map((v) => `${v.id}: ${v.nodes.length}: ${v.nodes[0].html.slice(0, 200)} ${v.nodes[0].failureSummary}`);
      assert.deepEqual(list, [], path);
    }
    return page;
  }

  await check("axe-core, light", () => audit({ colorScheme: "light" }, {}));
  await check("axe-core, dark", () => audit({ colorScheme: "dark" }, { runOnly: ["color-contrast"] }));
  await check("axe-core, on a phone", async () => {
    const width = 320; // WCAG 1.4.10
    const page = await audit({ viewport: { width, height: 740 }, isMobile: true, hasTouch: true }, { runOnly: ["target-size", "meta-viewport"] }, async (page, path) => {
      assert.equal(await page.evaluate(() => document.scrollingElement.scrollWidth), width, `${path} is wider than the screen`);
    });
    await to(page, gl);
    await page.tap("#matrix tbody tr a.cell");
    await page.waitForURL(/\/-\/m\//);
  });

  if (SHOTS) {
    await check("screenshots", async () => {
      const manifest = all[3];
      const desk = { width: 1280, height: 860 };
      for (const [name, path, options, at] of [
        ["overview", gl, { viewport: desk, colorScheme: "light" }],
        ["bytes", gl, { viewport: desk, colorScheme: "light" }, "#h-bytes"],
        ["manifest-dark", manifest, { viewport: desk, colorScheme: "dark" }],
        ["diff", pairs, { viewport: desk, colorScheme: "light" }],
        ["phone", manifest, { viewport: { width: 390, height: 780 }, isMobile: true, hasTouch: true, colorScheme: "light" }],
      ]) {
        const page = await open({ ...options, reducedMotion: "reduce" });
        await to(page, path);
        // The port is another each time.
        await page.evaluate(() => { for (const e of document.querySelectorAll(".cmd code")) e.textContent = e.textContent.replace(/127\.0\.0\.1:\d+/, "127.0.0.1:5000"); });
        if (at) await page.evaluate((at) => document.querySelector(at).scrollIntoView(), at);
        await page.screenshot({ path: `${SHOTS}/${name}.png` });
      }
    });
  }
} finally {
  await browser.close();
}
