# What runs/polyps.sh and runs/skin.sh share: rivals in one study for each number of annotated pairs, as cells. Sourced;
# they set `images` (the data), `repetitions` (as cells name them) and `tests` (options), and call `rivals OUT WHAT...`.
#
# N = 25: six arms in all repetitions: real, real-geo, Siamese-Diffusion, the best other generator, semi-supervision, and
# the best combination of them. N = 100: real-geo and the winner in all of them, the others in the first one.
# Which generator is best, which combination, and which arm is the winner is read from validation parts (`screen`, and
# then the table of validation scores), never from a test part, and stated here:
: "${OTHER:=arsdm}"                              # the best other generator of the screening
: "${COMBINED:=semi-syn+generator=siamese,$OTHER}" # reuses both generators
: "${WINNER:=syn-geo}"                           # at N = 25

screened=(controlnet t2i-adapter arsdm copy-paste singan-seg)
headline=(real real-geo syn-geo "syn-geo+generator=$OTHER" semi "$COMBINED")
controls=(duplicated more-real)

study() { # study N OUT ...: the same study in every call for one N; --cells chooses, arms may be added
    morphogen study "$images" --out "$2/n$1" --annotated "$1" "${tests[@]}" --generator siamese \
        --preset "${PRESET:-tiny}" "${@:3}"
}

rivals() {
    local out=$1 part arms repetition
    local what=("${@:2}")
    [ ${#what[@]} -gt 0 ] || what=(headline large exploratory table)
    local others=()
    for name in "${screened[@]}"; do others+=("syn-geo+generator=$name"); done
    for part in "${what[@]}"; do
        case $part in
        dry) for n in 25 100; do study "$n" "$out" --arms "${headline[@]}" "${controls[@]}" --dry-run; done ;;
        screen) # every generator once; and what validation says of it
            study 25 "$out" --arms real-geo syn-geo "${others[@]}" --cells "*.${repetitions[0]}.*"
            python "$(dirname "${BASH_SOURCE[0]}")/validation_scores.py" "$out/n25"
            ;;
        headline) # repetition by repetition, so that what is there is always whole
            for repetition in "${repetitions[@]}"; do
                study 25 "$out" --arms "${headline[@]}" --cells "*.$repetition.*"
            done
            ;;
        large)
            arms=(real-geo "$WINNER")
            for repetition in "${repetitions[@]}"; do
                study 100 "$out" --arms "${arms[@]}" --cells "*.$repetition.*"
            done
            ;;
        exploratory) # the first repetition of everything else: rivals, noise floor and headroom at 25, all arms at 100
            study 25 "$out" --arms "${headline[@]}" "${controls[@]}" "${others[@]}" --cells "*.${repetitions[0]}.*"
            study 100 "$out" --arms "${headline[@]}" "${controls[@]}" --cells "*.${repetitions[0]}.*"
            ;;
        table)
            for n in 25 100; do
                [ ! -e "$out/n$n/cells" ] || python "$(dirname "${BASH_SOURCE[0]}")/study_table.py" "$out/n$n"
            done
            python "$(dirname "${BASH_SOURCE[0]}")/dice_against_n.py" "$out"/n*/ --figure "$out/dice.png"
            ;;
        *)
            echo "$part: is none of dry, screen, headline, large, exploratory, table" >&2
            exit 2
            ;;
        esac
    done
}
