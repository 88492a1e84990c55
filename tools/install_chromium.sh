#!/bin/sh
# Installs Debian's Chromium for the browser tests where it is absent and can be installed; says so otherwise.
set -u

if command -v chromium >/dev/null 2>&1; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "Chromium is not installed: the browser tests are skipped. Debian and Ubuntu: sudo apt-get install chromium"
	exit 0
fi
echo "Installing Chromium for the browser tests: once, about a minute."
export DEBIAN_FRONTEND=noninteractive
if apt-get -qq update >/dev/null && apt-get -qq install --no-install-recommends -y chromium >/dev/null; then
	exit 0
fi
echo "apt-get could not install Chromium: the browser tests are skipped, or fail where CI or HMLM_REQUIRE_BROWSER is set."
exit 0
