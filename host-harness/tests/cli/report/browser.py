"""The report's page in headless Chromium: browser.py PAGE PROFILE HOSTILE

Ends with 0 when everything holds, else names what does not. $VEXFS_SCREENSHOTS is a folder for pictures.
"""

import json
import os
import pathlib
import sys
import urllib.parse

import selenium_axe_python
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

PAGE = pathlib.Path(sys.argv[1]).resolve()
PROFILE, HOSTILE = sys.argv[2:4]
PHONE, DESKTOP = (360, 740), (1280, 900)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --allow-file-access-from-files"""

failures = []


def must(holds, what):
    print("ok   " if holds else "FAIL ", what)
    if not holds:
        failures.append(what)


def start():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS.split() + [f"--user-data-dir={PROFILE}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    return webdriver.Chrome(options=options, service=service)


driver = start()
driver.set_script_timeout(150)


def run(script, *arguments):
    return driver.execute_script(script, *arguments)


def size(width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def scheme(name):
    wishes = {"prefers-color-scheme": name, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": wish, "value": value} for wish, value in wishes.items()]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def load(fragment=""):
    driver.get("about:blank")
    driver.get(PAGE.as_uri() + fragment)


def brightness():
    colour = run("return getComputedStyle(document.body).backgroundColor")
    numbers = [int(word) for word in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(numbers) / 3


def picture(name, whole=True):
    folder = os.environ.get("VEXFS_SCREENSHOTS")
    if not folder:
        return
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": whole})
    if whole:
        clip = run("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": clip[0], "height": clip[1], "scale": 1}
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    import base64

    pathlib.Path(folder, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def text(id):
    return driver.find_element(By.ID, id).text


def middle(element):
    """Away from the bar that sticks to the top."""
    run("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def fill(id, words):
    field = middle(driver.find_element(By.ID, id))
    field.clear()
    field.send_keys(words)


def choose(id, value):
    Select(middle(driver.find_element(By.ID, id))).select_by_value(value)


def renders():
    must("failed" in driver.title, "the title tells the verdict")
    must("did not pass" in text("verdict"), "so does the heading")
    must(run("return document.querySelectorAll('main section h2').length") >= 8, "all sections have a heading")
    must(run("return document.querySelectorAll('main, nav[aria-label], header, footer').length") == 4, "landmarks")
    must(
        run("return [...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope]'))"),
        "every table has a caption and headers with a scope",
    )
    must(
        run(
            "return [...document.querySelectorAll('svg:not([aria-hidden])')].every(s => s.getAttribute('role') === 'img'"
            " && (s.getAttribute('aria-label') || s.querySelector('title')))"
        ),
        "every picture has a name or is hidden from readers",
    )
    must(run("return document.querySelectorAll('.treemap .tile').length") > 10, "the treemap is drawn")
    must(run("return document.querySelectorAll('.trend .mark').length") > 0, "a point of change is drawn")


def harmless():
    must(run("return window.pwned === undefined"), "no hostile script ran")
    must(run("return document.scripts.length") == 2, "the page has its own two scripts and no other")
    must(run("return document.querySelectorAll('img, iframe, object, embed, form[action]').length") == 0, "no foreign elements")
    must(
        run("return [...document.querySelectorAll('*')].every(e => ![...e.attributes].some(a => a.name.startsWith('on')))"),
        "no element has a handler",
    )
    # Even markup that got in would not run.
    run(
        "const a = document.createElement('div'); a.innerHTML = '<img src=x onerror=\"window.pwned=9\">';"
        "document.body.append(a);"
        "const s = document.createElement('script'); s.textContent = 'window.pwned=8'; document.body.append(s);"
    )
    driver.execute_async_script("setTimeout(arguments[0], 300)")
    must(run("return window.pwned === undefined"), "the content security policy stops what is not ours")
    logs()  # What was refused just now is no mistake of the page.


def filters():
    rows = "return [...document.querySelectorAll('#matrix tbody tr')].filter(r => !r.hidden).length"
    every = run(rows)
    fill("check-find", "stress")
    must(0 < run(rows) < every and text("check-found").startswith(f"{run(rows)} of {every}"), "checks by word")
    fill("check-find", "nothing has this")
    must(run(rows) == 0, "checks by a word that none has")
    fill("check-find", " ")
    choose("check-outcome", "bad")
    must(run(rows) == 2, "checks that did not pass")
    choose("check-outcome", "flaky")
    must(run(rows) == 1, "checks that are flaky")
    choose("check-outcome", "")
    choose("check-tier", "boot-only")
    must(0 < run(rows) < every, "checks by tier")
    choose("check-tier", "")
    must(run(rows) == every, "all checks again")
    cards = "return [...document.querySelectorAll('article.trend')].filter(r => !r.hidden).length"
    all_cards = run(cards)
    middle(driver.find_element(By.ID, "trend-changed")).click()
    must(run(cards) == 1 and all_cards > 1, "what changed")
    middle(driver.find_element(By.ID, "trend-changed")).click()
    fill("trend-find", "fio_verify")
    must(run(cards) >= 1, "the history by word")
    fill("trend-find", " ")


def log_viewer():
    lines = "return [...document.querySelectorAll('#log-lines .l')].map(l => l.querySelector('.tx').textContent)"
    link = driver.find_element(By.CSS_SELECTOR, "td[data-case='minimal::quick::stress'] a[data-case]")
    middle(link).click()
    chosen = Select(driver.find_element(By.ID, "log-choice")).first_selected_option.text
    must("minimal::quick::stress: kernel log" in chosen, "a check leads to its log")
    must(driver.switch_to.active_element.get_attribute("id") == "log-choice", "and the focus goes there")
    hostile = [line for line in run(lines) if "<script>" in line]
    must(hostile and " ".join(HOSTILE.split()) in " ".join(hostile[0].split()), "hostile text is shown as it was said")
    every = len(run(lines))
    choose("log-severity", "3")
    must(0 < len(run(lines)) < every, "lines by severity")
    must(all("Linux version" not in line for line in run(lines)), "lesser ones are gone")
    choose("log-severity", "9")
    fill("log-find", "out-of-TREE")
    must(len(run(lines)) == 1, "lines by word, whatever its case")
    must(run("return document.querySelector('#log-lines mark').textContent") == "out-of-tree", "and marked")
    must(text("log-found").startswith("1 of "), "and counted")
    fill("log-find", "<script>")
    must(len(run(lines)) == 1, "hostile words can be looked for")
    fill("log-find", " ")
    console = [o.get_attribute("value") for o in Select(driver.find_element(By.ID, "log-choice")).options if "stress: console" in o.text]
    choose("log-choice", console[0])
    must(run("return document.querySelectorAll('#log-lines .l3').length") == 1, "a console's lines have the kernel log's severity")


def links():
    bad = []
    for href in run("return [...document.querySelectorAll('a[href], link[href]')].map(a => a.getAttribute('href'))"):
        parts = urllib.parse.urlsplit(href)
        if parts.scheme == "data" and href == "data:,":
            continue
        if parts.scheme or parts.netloc:
            bad.append(href)
        elif href.startswith("#"):
            if not run("return document.getElementById(arguments[0]) !== null", href[1:]):
                bad.append(href)
        elif not (PAGE.parent / urllib.parse.unquote(parts.path)).is_file():
            bad.append(href)
    must(not bad, f"every link leads somewhere: {bad}")
    must(run("return document.querySelectorAll('.failure a[href*=dossiers]').length") > 3, "failures lead into their dossiers")
    ids = run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    must(len(ids) == len(set(ids)), "no id is there twice")


def themes():
    scheme("light")
    must(brightness() > 200, "light, as the system")
    scheme("dark")
    must(brightness() < 60, "dark, as the system")
    button = driver.find_element(By.ID, "theme")
    button.click()
    must(brightness() > 200 and "light" in button.text, "light by choice on a dark system")
    load()
    must(brightness() > 200, "the choice is remembered")
    driver.find_element(By.ID, "theme").click()
    scheme("light")
    must(brightness() < 60, "dark by choice on a light system")
    driver.find_element(By.ID, "theme").click()
    must(brightness() > 200, "and back to the system's")


def fits(name):
    run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    wide = run(
        "const w = document.documentElement.clientWidth; return [document.documentElement.scrollWidth - w,"
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > w + 1"
        " && !e.closest('.scroll, .detail, .log, svg, .hidden')).slice(0, 5).map(e => e.outerHTML.slice(0, 120))]"
    )
    must(wide[0] <= 0 and not wide[1], f"nothing is wider than the screen, {name}: {wide}")
    if name == "phone":
        small = run(
            "return [...document.querySelectorAll('nav a, button, select, input')].filter(e => e.offsetParent"
            " && e.getBoundingClientRect().height < 24).map(e => e.outerHTML.slice(0, 90))"
        )
        must(not small, f"what one taps is large enough: {small}")


def keyboard():
    load()
    focus = "const a = document.activeElement; return a.id || a.getAttribute('href') || a.tagName"
    press = lambda *keys: ActionChains(driver).send_keys(*keys).perform()
    press(Keys.TAB)
    must(run(focus) == "#main", "the first stop is the way to the content")
    must(run("return document.activeElement.getBoundingClientRect().top >= 0"), "which then can be seen")
    press(Keys.ENTER)
    must(run(focus) == "main", "and leads there")
    seen, unseen = [], []
    for _ in range(400):
        press(Keys.TAB)
        where = run(focus)
        if where == "BODY":
            break
        seen.append(where)
        if run("return getComputedStyle(document.activeElement).outlineStyle") == "none":
            unseen.append(where)
    for stop in ["check-find", "check-outcome", "trend-find", "log-choice", "log-find", "log-severity", "log-lines"]:
        must(stop in seen, f"the keyboard reaches {stop}")
    must(not unseen, f"where the focus is can be seen: {unseen}")
    run("document.activeElement.blur()")
    press("/")
    must(run(focus) == "log-find", "/ goes to the search in logs")
    press("usb/")
    must(run("return document.getElementById('log-find').value") == "usb/", "and is a letter while one types")


def accessible(name, options):
    axe = pathlib.Path(selenium_axe_python.__file__).parent / "axe-core/axe.min.js"
    run(axe.read_text())
    result = driver.execute_async_script("axe.run(document, arguments[0]).then(arguments[1])", options)
    bad = [
        (v["id"], v["help"], [n["html"][:160] for n in v["nodes"][:3]], len(v["nodes"]))
        for v in result["violations"]
    ]
    must(len(result["passes"]) > 0, f"axe looked, {name}")
    must(not bad, f"axe finds nothing, {name}: {json.dumps(bad, indent=1)}")


def logs():
    return [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def quiet():
    said = logs()
    must(not said, f"the console says nothing: {said}")
    asked = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"].split("#")[0])
    outside = [url for url in asked if url.split(":")[0] not in ("file", "data", "about", "chrome")]
    must(PAGE.as_uri() in asked and not outside, f"nothing is asked of a network: {outside}")


try:
    size(*DESKTOP)
    scheme("light")
    load()
    renders()
    picture("desktop-light")
    filters()
    log_viewer()
    picture("logs", whole=False)
    links()
    fits("desktop")
    accessible("light", {})
    keyboard()
    themes()
    scheme("dark")
    load()
    picture("desktop-dark")
    # What differs is the colours.
    accessible("dark", {"runOnly": ["color-contrast"]})
    size(*PHONE)
    load()
    picture("phone-dark")
    scheme("light")
    load()
    picture("phone-light")
    fits("phone")
    accessible("phone", {"rules": {"color-contrast": {"enabled": False}}})
    quiet()
    harmless()
finally:
    driver.quit()

if failures:
    sys.exit("does not hold:\n" + "\n".join(failures))
