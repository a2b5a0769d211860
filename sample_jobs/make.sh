#!/bin/sh
# Renders the films, the images and the failed job's log of the samples again with ffmpeg, in this directory.
# Needs an ffmpeg with libx264 and drawtext, the font DejaVu Sans, and jobsvc.
set -eu
cd "$(dirname "$0")"

seahorse="start_x=-0.743643887037158704752191506114774:start_y=-0.131825904205311970493132056385139"
seahorse="$seahorse:inner=black:outer=normalized_iteration_count"
dusk="hue=s=0,curves=r='0/0.02 0.35/0.10 0.6/0.85 1/1':g='0/0.03 0.35/0.30 0.65/0.62 1/0.97':b='0/0.10 0.35/0.50 0.6/0.40 1/0.85'"
shadow="fontcolor=white:shadowx=2:shadowy=2:x=(w-tw)/2"
film="-c:v libx264 -preset veryslow -pix_fmt yuv420p -movflags +faststart -fflags +bitexact -map_metadata -1"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Appends the output of ffmpeg to the log that is named first, without the addresses that differ in each run.
render() {
    log=$1; shift
    result=0
    ffmpeg -hide_banner -nostdin -nostats -y "$@" >"$scratch/said" 2>&1 || result=$?
    tr '\r' '\n' <"$scratch/said" | sed 's/ @ 0x[0-9a-f]*//g; s/ *$//' >>"$log"
    return $result
}

# 1. The completed film: a flight into the Mandelbrot set.
job=opening-title-0042; mkdir -p $job/output
echo "2026-11-20T09:14:07Z farm: opening-title-0042 taken by render-03, attempt 1" >$job/render.log
render $job/render.log -f lavfi \
    -i "mandelbrot=s=640x360:rate=25:start_scale=1.4:end_scale=0.0012:end_pts=125:maxiter=900:$seahorse" -t 4 \
    -vf "$dusk,gblur=sigma=0.6,drawtext=font='DejaVu Sans':text='O P E N I N G   T I T L E':fontsize=34:y=(h-th)/2-14:$shadow:alpha='min(1,max(0,t-0.6))'" \
    $film -crf 35 $job/output/opening-title.mp4
echo "2026-11-20T09:16:31Z farm: 100 of 100 frames, output/opening-title.mp4" >>$job/render.log

# 2. The completed image.
job=poster-frame-0007; mkdir -p $job/output
echo "2026-11-20T11:02:40Z farm: poster-frame-0007 taken by render-01, attempt 1" >$job/render.log
render $job/render.log -loglevel error -stats -f lavfi \
    -i "mandelbrot=s=1920x1080:start_scale=0.006:maxiter=1200:$seahorse" \
    -vf "$dusk,scale=960:540:flags=lanczos,gblur=sigma=0.5,format=yuvj420p" -frames:v 1 -q:v 10 -bitexact $job/output/poster.jpg
echo "2026-11-20T11:02:44Z farm: 1 of 1 frames, output/poster.jpg" >>$job/render.log

# 3. The film with a name that is not ASCII: a sunrise.
job=daybreak-1998; mkdir -p $job/output
sun="hypot(X-320,Y-(300-35*T))"
render /dev/null -f lavfi -i "nullsrc=s=640x360:r=25" -t 4 \
    -vf "format=gbrp,geq=r='min(255,20+(40+40*T)*Y/H*1.6+380*exp(-$sun/60))':g='min(255,18+(12+28*T)*pow(Y/H,2)*1.5+300*exp(-$sun/48))':b='min(255,60+(30+6*T)*(1-Y/H)+35*Y/H+150*exp(-$sun/38))',drawtext=font='DejaVu Sans':text='Träume':fontcolor=white:fontsize=44:x=(w-tw)/2:y=70:alpha='min(1,t/1.5)'" \
    $film -crf 27 "$job/output/Träume – 夜明け.mp4"

# 4. The film of another owner: a token of the owner demo must never see it.
job=bumper-0001; mkdir -p $job/output
render /dev/null -f lavfi -i "testsrc2=s=320x180:r=12" -t 1 $film -crf 34 $job/output/bumper.mp4

# 5. The failed job: one frame of a numbered sequence is truncated, as by a full disk.
job=turntable-0013; mkdir -p $job
mkdir "$scratch/plates"
render /dev/null -f lavfi -i "mandelbrot=s=320x180:start_scale=0.006:$seahorse" -frames:v 24 "$scratch/plates/plate_%04d.png"
whole=$(wc -c <"$scratch/plates/plate_0019.png")
head -c 2000 "$scratch/plates/plate_0019.png" >"$scratch/cut"
mv "$scratch/cut" "$scratch/plates/plate_0019.png"
cat >$job/render.log <<'LOG'
2026-11-21T16:40:02Z farm: turntable-0013 taken by render-02, attempt 3 of 3
2026-11-21T16:40:02Z farm: plates 0001-0024 found, 24 of 24
2026-11-21T16:40:03Z farm: ffmpeg -xerror -framerate 24 -i plates/plate_%04d.png -c:v libx264 output/turntable.mp4
LOG
log=$PWD/$job/render.log
(cd "$scratch" && render "$log" -xerror -err_detect explode -framerate 24 -i plates/plate_%04d.png \
    -c:v libx264 -pix_fmt yuv420p turntable.mp4) && { echo "make.sh: this ffmpeg took the broken plate" >&2; exit 1; }
cat >>$job/render.log <<LOG
2026-11-21T16:40:05Z farm: ffmpeg ended with exit code 1
2026-11-21T16:40:05Z farm: plates/plate_0019.png has 2000 bytes where attempt 1 found $whole: was the disk full when it was written?
2026-11-21T16:40:05Z farm: no attempts left, job failed
LOG

# 6. The sequence: twelve frames of a turning star.
job=star-turn-0420; mkdir -p $job/output
render /dev/null -f lavfi -i "nullsrc=s=160x90:r=12" -t 1 -start_number 1001 -bitexact \
    -vf "format=gray,geq=lum='255*lt(hypot(X-80,Y-45),22+12*cos(5*atan2(Y-45,X-80)+2*PI*T))'" $job/output/star.%04d.png

# 7. The film with a preview image: the middle of the film.
job=teaser-0031; mkdir -p $job/output
render /dev/null -f lavfi -i "mandelbrot=s=320x180:rate=12:start_scale=0.8:end_scale=0.01:end_pts=24:maxiter=400:$seahorse" -t 2 \
    -vf "$dusk" $film -crf 36 $job/output/teaser.mp4
render /dev/null -ss 1 -i $job/output/teaser.mp4 -frames:v 1 -q:v 8 -bitexact $job/output/teaser.jpg

# The records and logs, with jobsvc.farm.
cd .. && python3 -m tests.sample_jobs
