#!/bin/sh
# What a file manager's menu starts: an action, then the files that are chosen. What goes wrong is
# told in a window, for nobody sees what it prints.
action=$1
shift
told=$(mktemp) || exit 1
trap 'rm -f "$told"' EXIT

complain() {
    yad --no-markup --center --width=400 --title=Insula --image=dialog-error --button=Close:0 \
        --text="$(head -c 1000 "$told")" 2>/dev/null
    exit 1
}

# Runs it with a window that says how much has gone, and whose button ends it.
with_progress() {
    { PROGRESS_TYPE=gui "$@" 2>"$told" && : >"$told"; } |
        while read -r bytes; do echo "# $((bytes / 1048576)) MiB have gone"; done |
        yad --progress --pulsate --auto-close --center --width=400 --title=Insula \
            --text="To another qube" --button=Cancel:1 2>/dev/null || exit 0
    if [ -s "$told" ]; then complain; fi
}

case $action in
copy | move) with_progress "qvm-$action" -- "$@" ;;
pdf) qvm-convert-pdf -- "$@" 2>"$told" || complain ;;
img | openvm | opendvm | viewdvm)
    for file; do
        case $action in
        img) qvm-convert-img "$file" "${file%.*}.trusted.png" ;;
        openvm) qvm-open-in-vm -- @default "$file" ;;
        opendvm) qvm-open-in-dvm -- "$file" ;;
        viewdvm) qvm-open-in-dvm --view-only -- "$file" ;;
        esac 2>"$told" || complain
    done
    ;;
*) exit 1 ;;
esac
