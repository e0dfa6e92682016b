#!/bin/sh
# What a file manager's menu starts: an action, then the files that are chosen.
action=$1
shift
case $action in
copy) exec qvm-copy --without-progress -- "$@" ;;
move) exec qvm-move --without-progress -- "$@" ;;
pdf) exec qvm-convert-pdf -- "$@" ;;
esac
for file; do
    case $action in
    img) qvm-convert-img "$file" "${file%.*}.trusted.png" ;;
    openvm) qvm-open-in-vm -- @default "$file" ;;
    opendvm) qvm-open-in-dvm -- "$file" ;;
    viewdvm) qvm-open-in-dvm --view-only -- "$file" ;;
    *) exit 1 ;;
    esac
done
